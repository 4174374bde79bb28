package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"

	"upcall/internal/cli"
	"upcall/internal/fault"
	"upcall/internal/oss"
	"upcall/internal/uploader"
)

// journalKept is how long a journal of finished files is kept that no command uses.
const journalKept = 365 * 24 * time.Hour

// finishedFiles are the files that the same command has uploaded before.
type finishedFiles struct {
	dir    string // of the journals
	target string // names the journal
	memory *uploader.Memory
	oss    *oss.Client
	bucket string
	unsure sync.Once // says once that OSS does not tell
}

// remembered returns the files that the same command has uploaded before. It is nil if the
// command was told to upload everything, or if there is no directory to remember them in.
func (c *uploadCommand) remembered(env cli.Env, client *oss.Client, remarks io.Writer) (*finishedFiles, error) {
	if c.Again {
		return nil, nil
	}
	dir, err := c.stateDir(env)
	if err != nil {
		fmt.Fprintln(remarks, "issuer: note: HOME is not set, so it is not remembered which files are uploaded; give --state-dir")
		return nil, nil
	}
	// What becomes of a file depends on all of these, but not on who signs, for how long, and
	// in which parts it is sent.
	object, where := c.objectFlags, c.OSSFlags
	object.Key, object.Expires, where.CredentialFlags = "", "", cli.CredentialFlags{}
	target, err := digestOf(object, c.callbackFlags, where)
	if err != nil {
		return nil, err
	}
	return &finishedFiles{dir: filepath.Join(dir, "finished"), target: target, oss: client, bucket: c.Bucket}, nil
}

// load reads the journal. It comes after all mistakes are found, because it makes the directory.
func (f *finishedFiles) load(ctx context.Context) (err error) {
	if f == nil {
		return nil
	}
	forgetOld(f.dir, ".jsonl*", journalKept)
	f.memory, err = uploader.LoadMemory(ctx, filepath.Join(f.dir, f.target+".jsonl"))
	return fault.In("--state-dir", err)
}

// idOf identifies the file and its object. Its digest reveals neither.
func idOf(job *uploadJob) (string, error) {
	path, err := filepath.Abs(job.name)
	if err != nil {
		return "", fmt.Errorf("find file: %w", err)
	}
	return digestOf([]byte(path), []byte(job.key)) // names need not be UTF-8
}

func digestOf(values ...any) (string, error) {
	identity, err := json.Marshal(values)
	if err != nil {
		return "", fmt.Errorf("name state of the upload: %w", err)
	}
	sum := sha256.Sum256(identity)
	return hex.EncodeToString(sum[:]), nil
}

// find returns what is remembered of the job's file, if it was uploaded before as it is now and
// its object is still there.
func (f *finishedFiles) find(ctx context.Context, job *uploadJob, source *uploader.Source, w fileMeter) (
	uploader.Finished, bool, error) {
	if f == nil {
		return uploader.Finished{}, false, nil
	}
	id, err := idOf(job)
	if err != nil {
		return uploader.Finished{}, false, err
	}
	before, found, err := f.memory.Find(ctx, id, source)
	if err != nil || !found {
		return uploader.Finished{}, false, err
	}
	there, err := f.oss.Head(ctx, f.bucket, job.key)
	switch {
	case errors.Is(err, oss.ErrNoObject):
		w.Remark("was uploaded before, but the object is gone; uploading it again")
		return uploader.Finished{}, false, nil
	case err != nil && ctx.Err() != nil:
		return uploader.Finished{}, false, context.Cause(ctx)
	case err != nil:
		f.unsure.Do(func() {
			w.Remark(fmt.Sprintf("note: it is not known whether what was uploaded before is still there (%v)", err))
		})
	case there.Size != before.Size || there.CRC64 != nil && *there.CRC64 != before.CRC64:
		w.Remark("was uploaded before, but another object has taken its place; uploading it again")
		return uploader.Finished{}, false, nil
	}
	return before, true, nil
}

// keep remembers that the job's file is uploaded. That it cannot does not make the upload fail.
func (f *finishedFiles) keep(ctx context.Context, job *uploadJob, source *uploader.Source, r uploader.Result, w fileMeter) {
	if f == nil {
		return
	}
	id, err := idOf(job)
	if err == nil {
		// Also after Ctrl-C: the file is uploaded.
		err = f.memory.Keep(context.WithoutCancel(ctx), id, source, r)
	}
	if err != nil {
		w.Remark(fmt.Sprintf("note: the same command would upload it again (%v)", err))
	}
}
