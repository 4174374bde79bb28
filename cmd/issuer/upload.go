package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"sync"

	"github.com/alecthomas/kong"
	"golang.org/x/sync/errgroup"

	"upcall/internal/cli"
	"upcall/internal/fault"
	"upcall/internal/manifest"
	"upcall/internal/uploader"
)

// uploadCommand uploads by a manifest, or by ones that it makes itself.
type uploadCommand struct {
	Files []string `arg:"" name:"file" help:"The files to upload."`

	Manifest string `placeholder:"FILE" setting:"UPCALL_MANIFEST" help:"${given_manifest}"`
	Parallel int    `default:"4" placeholder:"4" setting:"UPCALL_PARALLEL" help:"${parallel}"`
	Attempts int    `default:"8" placeholder:"8" setting:"UPCALL_ATTEMPTS" help:"${attempts}"`
	StateDir string `placeholder:"FOLDER" setting:"UPCALL_STATE_DIR" help:"${state_dir}"`

	objectFlags   `group:"upload"`
	PartSize      string `group:"upload" placeholder:"BYTES" setting:"UPCALL_PART_SIZE" help:"${split_size}"`
	callbackFlags `group:"callback"`
	ossFlags      `group:"oss"`
}

// Help is shown below the summary of the command.
func (*uploadCommand) Help() string {
	return `A key that ends in / gets the file's name appended; several files need such a key.

Standard output gets the callback receiver's answers, one line of JSON for each file in the order of the
files, and nothing where there is no callback. Everything else goes to standard error.

If a multipart upload was interrupted, run the same command again to resume it: parts that are there already
and are the same as in the file are not sent again. With --manifest, that works until the manifest expires;
without, a new upload is begun then. Parts of an upload that is never resumed stay in the bucket until the
upload is aborted, or a lifecycle rule of the bucket drops them.

Where UPCALL_DATABASE_URL is set, each upload that the command issues is written to the ledger there, as with
issuer put.

The exit status is 0 if every file is stored, its CRC-64 compared and, where there is a callback, reported.
It is 2 if a setting is wrong, and 1 if something else went wrong: also if a file is stored but its callback
failed (203 CallbackFailed).`
}

// An uploadJob is one file on its way.
type uploadJob struct {
	name   string // as it was given
	source *uploader.Source

	// task makes the manifest, or says which one there is. It is called when the upload
	// begins, as URLs expire.
	task func(ctx context.Context, up *uploader.Uploader, w fileMeter) (uploader.Task, error)
}

// Run uploads the files. kong calls it.
func (c *uploadCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio, line *kong.Context) error {
	// Half as much garbage as usual: a manifest of 10,000 parts is the most that is kept
	// in memory, and the program is to stay small beside what else the machine does.
	debug.SetGCPercent(50)
	up, err := c.uploader()
	jobs, openErr := c.open()
	defer closeAll(jobs)
	var fillErr error
	if c.Manifest != "" {
		fillErr = c.useManifest(jobs, env, std.In, line)
	} else {
		ledger, closeLedger, err := openLedger(ctx, env)
		defer closeLedger()
		fillErr = fault.Join(err, c.makeManifests(jobs, env, ledger, std.Err))
	}
	if err := fault.Join(err, openErr, fillErr); err != nil {
		return cli.Usage(err)
	}
	var total int64
	for _, job := range jobs {
		total += job.source.Size()
	}
	meter := newMeter(std.Err, total, isTerminal(std.Err))
	defer meter.end()
	return uploadAll(ctx, up, jobs, c.Parallel, meter, &inOrder{w: std.Out})
}

func (c *uploadCommand) uploader() (*uploader.Uploader, error) {
	var faults fault.List
	if c.Parallel == 0 { // which the uploader takes for its default, as the next one
		faults.AddAt("--parallel", "0 is out of range; give 1 to 64")
	}
	if c.Attempts == 0 {
		faults.AddAt("--attempts", "0 is out of range; give 1 to 100")
	}
	up, err := uploader.New(uploader.Config{Parallel: c.Parallel, Attempts: c.Attempts})
	return up, fault.Join(faults, fault.Prefix("--", err))
}

// open opens all files, so that a wrong name is found before the first is sent.
func (c *uploadCommand) open() ([]*uploadJob, error) {
	var jobs []*uploadJob
	var faults fault.List
	for _, name := range c.Files {
		source, err := uploader.OpenSource(name)
		if err != nil {
			faults.Add(err)
			continue
		}
		jobs = append(jobs, &uploadJob{name: name, source: source})
	}
	return jobs, faults.Err()
}

func closeAll(jobs []*uploadJob) {
	for _, job := range jobs {
		job.source.Close() // only read
	}
}

// useManifest makes the one job upload by the manifest that was given.
func (c *uploadCommand) useManifest(jobs []*uploadJob, env cli.Env, in io.Reader, line *kong.Context) error {
	faults := checkAlone(line)
	if len(c.Files) > 1 {
		faults.AddAt("--manifest", "it is for one file, and there are %d", len(c.Files))
	}
	m, err := readManifest(c.Manifest, in)
	if err != nil {
		return fault.Join(faults, fault.In("--manifest", err))
	}
	var state *uploader.State
	for _, job := range jobs {
		faults.Add(fault.In("--manifest", uploader.Fit(m, job.source.Size())))
		if m.Multipart != nil {
			state, err = c.givenState(env, job.name, m)
			faults.Add(err)
		}
		job.task = func(context.Context, *uploader.Uploader, fileMeter) (uploader.Task, error) {
			return uploader.Task{Manifest: m, State: state}, nil
		}
	}
	return faults.Err()
}

func readManifest(path string, in io.Reader) (manifest.Manifest, error) {
	if path == "-" {
		return manifest.Read(in)
	}
	file, err := os.Open(path)
	if err != nil {
		return manifest.Manifest{}, err
	}
	defer file.Close()
	return manifest.Read(file)
}

// checkAlone refuses flags that a manifest leaves no room for. Variables are let pass:
// they may be set for other commands.
func checkAlone(line *kong.Context) fault.List {
	var faults fault.List
	for _, element := range line.Path {
		if flag := element.Flag; flag != nil && !element.Resolved && flag.Group != nil {
			faults.AddAt("--"+flag.Name, "the manifest says that already; leave one of them out")
		}
	}
	return faults
}

// uploadAll uploads the jobs, several at once, and prints the answers.
func uploadAll(ctx context.Context, up *uploader.Uploader, jobs []*uploadJob, parallel int, meter *meter, answers *inOrder) error {
	var group errgroup.Group
	group.SetLimit(parallel)
	errs := make([]error, len(jobs))
	for i, job := range jobs {
		group.Go(func() error {
			answer, err := job.run(ctx, up, meter)
			errs[i] = errors.Join(err, answers.put(i, answer))
			return nil
		})
	}
	_ = group.Wait() // each error is a file's own
	if ctx.Err() == nil {
		return errors.Join(errs...)
	}
	told := []error{errors.New("interrupted; run the same command again")}
	for _, err := range errs {
		if err != nil && !errors.Is(err, ctx.Err()) {
			told = append(told, err)
		}
	}
	return errors.Join(told...)
}

// run uploads one file and returns the callback's answer, nil without a callback.
func (job *uploadJob) run(ctx context.Context, up *uploader.Uploader, meter *meter) (json.RawMessage, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	watcher := meter.file(job.name)
	task, err := job.task(ctx, up, watcher)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fault.Readable(job.name), err)
	}
	task.Source, task.Watcher = job.source, watcher
	result, err := up.Upload(ctx, task)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fault.Readable(job.name), err)
	}
	parts := ""
	if result.Parts > 0 {
		parts = fmt.Sprintf(" in %d parts", result.Parts)
	}
	if result.Kept > 0 {
		parts += fmt.Sprintf(", of which %d were there already", result.Kept)
	}
	watcher.Remark(fmt.Sprintf("uploaded %d bytes%s; CRC-64 %d, as in the file", job.source.Size(), parts, result.CRC64))
	return result.Answer, nil
}

// inOrder prints answers in the order of the files, each as soon as all before it are
// there.
type inOrder struct {
	w    io.Writer
	mu   sync.Mutex
	next int
	wait map[int]json.RawMessage
}

// put takes the answer of file i; nil prints nothing.
func (o *inOrder) put(i int, answer json.RawMessage) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.wait == nil {
		o.wait = make(map[int]json.RawMessage)
	}
	o.wait[i] = answer
	var lines bytes.Buffer
	for ; ; o.next++ {
		answer, ok := o.wait[o.next]
		if !ok {
			break
		}
		delete(o.wait, o.next)
		if answer == nil {
			continue
		}
		if err := json.Compact(&lines, answer); err != nil {
			return fmt.Errorf("write answer: %w", err)
		}
		lines.WriteByte('\n')
	}
	if _, err := o.w.Write(lines.Bytes()); err != nil {
		return fmt.Errorf("write answer: %w", err)
	}
	return nil
}
