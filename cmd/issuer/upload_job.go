package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"upcall/internal/fault"
	"upcall/internal/uploader"
)

// An uploadJob is one file to upload. It is open only while it is uploaded.
type uploadJob struct {
	name string // as it was given, or in the folder that was
	key  string // of the object; "" if a manifest says it
	size int64  // bytes, when it was found
	err  error  // why it cannot be uploaded; nil if it can

	// fromFolder says that the file was found in a folder, so that it fails alone.
	fromFolder bool

	// task makes the manifest. It is called when the upload starts, because URLs expire.
	task func(context.Context, *uploader.Uploader, fileMeter, *uploader.Source) (uploader.Task, error)

	finished *finishedFiles // nil remembers none
}

// find finds all files, so that a wrong name is known before the first file is sent. The error
// is about what the command line names.
func (c *uploadCommand) find(remarks io.Writer) ([]*uploadJob, error) {
	var jobs []*uploadJob
	var faults fault.List
	for _, name := range c.Files {
		if info, err := os.Stat(name); c.Recursive && err == nil && info.IsDir() {
			if _, err := os.ReadDir(name); err != nil {
				faults.Add(err)
				continue
			}
			jobs = append(jobs, c.inFolder(name, remarks)...)
			continue
		}
		source, err := uploader.OpenSource(name)
		if err != nil {
			faults.Add(err)
			continue
		}
		jobs = append(jobs, &uploadJob{name: name, key: c.keyOf(filepath.Base(name)), size: source.Size()})
		source.Close() // it was not written
	}
	return jobs, faults.Err()
}

// inFolder returns a job for each file below a folder, and says what it leaves out.
func (c *uploadCommand) inFolder(folder string, remarks io.Writer) []*uploadJob {
	var jobs []*uploadJob
	uploader.Walk(folder, c.FollowLinks, func(f uploader.Found) {
		if errors.Is(f.Err, uploader.ErrLink) || errors.Is(f.Err, uploader.ErrLoop) || errors.Is(f.Err, uploader.ErrNotFile) {
			fmt.Fprintf(remarks, "issuer: %s: left out: it %v\n", fault.Readable(f.Path), f.Err)
			return
		}
		jobs = append(jobs, &uploadJob{name: f.Path, key: c.keyOf(f.Name), size: f.Size, err: f.Err, fromFolder: true})
	})
	return jobs
}

// run uploads one file and returns the callback's answer, nil without a callback.
func (job *uploadJob) run(ctx context.Context, up *uploader.Uploader, meter *meter) (json.RawMessage, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	answer, err := job.upload(ctx, up, meter)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fault.Readable(job.name), err)
	}
	return answer, nil
}

func (job *uploadJob) upload(ctx context.Context, up *uploader.Uploader, meter *meter) (json.RawMessage, error) {
	if job.err != nil {
		return nil, job.err
	}
	source, err := uploader.OpenSource(job.name)
	if err != nil {
		return nil, err
	}
	defer source.Close() // it was only read
	watcher := meter.file(job.name)
	meter.resize(source.Size() - job.size)
	before, found, err := job.finished.find(ctx, job, source, watcher)
	if err != nil {
		return nil, err
	}
	if found {
		watcher.Kept(source.Size())
		watcher.Remark(fmt.Sprintf("was uploaded on %s and has not changed; --again uploads it again",
			before.At.Format("2006-01-02 at 15:04 MST")))
		return before.Answer, nil
	}
	task, err := job.task(ctx, up, watcher, source)
	if err != nil {
		return nil, err
	}
	task.Source, task.Watcher = source, watcher
	result, err := up.Upload(ctx, task)
	if err != nil {
		return nil, err
	}
	parts := ""
	if result.Parts > 0 {
		parts = fmt.Sprintf(" in %d parts", result.Parts)
	}
	if result.Kept > 0 {
		parts += fmt.Sprintf(", of which %d were there already", result.Kept)
	}
	job.finished.keep(ctx, job, source, result, watcher)
	watcher.Remark(fmt.Sprintf("uploaded %d bytes%s; CRC-64 %d, as in the file", source.Size(), parts, result.CRC64))
	return result.Answer, nil
}

// named adds the file's name to an answer, as its first member.
func named(file string, answer json.RawMessage) any {
	var members map[string]json.RawMessage
	if json.Unmarshal(answer, &members) != nil || members == nil || members["file"] != nil {
		return struct {
			File   string          `json:"file"`
			Answer json.RawMessage `json:"answer"`
		}{file, answer}
	}
	name, err := json.Marshal(file)
	if err != nil { // no text does that
		return answer
	}
	rest := bytes.TrimSpace(answer)[1:]
	text := append([]byte(`{"file":`), name...)
	if len(members) > 0 {
		text = append(text, ',')
	}
	return json.RawMessage(append(text, rest...))
}
