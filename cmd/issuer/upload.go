package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"golang.org/x/sync/errgroup"

	"upcall/internal/cli"
	"upcall/internal/fault"
	"upcall/internal/manifest"
	"upcall/internal/uploader"
)

// uploadCommand uploads with a given manifest, or with manifests that it makes itself.
type uploadCommand struct {
	Files []string `arg:"" name:"file" help:"The files to upload."`

	Manifest string `placeholder:"FILE" setting:"UPCALL_MANIFEST" help:"${given_manifest}"`
	Parallel int    `default:"4" placeholder:"4" setting:"UPCALL_PARALLEL" help:"${parallel}"`
	Attempts int    `default:"8" placeholder:"8" setting:"UPCALL_ATTEMPTS" help:"${attempts}"`
	StateDir string `placeholder:"DIR" setting:"UPCALL_STATE_DIR" help:"${state_dir}"`

	objectFlags   `group:"upload"`
	PartSize      string `group:"upload" placeholder:"BYTES" setting:"UPCALL_PART_SIZE" help:"${split_size}"`
	callbackFlags `group:"callback"`
	cli.OSSFlags  `group:"oss"`
}

// Help is shown below the summary of the command.
func (*uploadCommand) Help() string {
	return `A key that ends in / gets the file's name appended; several files need such a key.

Standard output gets the callback receiver's answers, one line of JSON for each file, in the order of the
files. Without a callback it gets nothing. Everything else goes to standard error.

If a multipart upload was interrupted, run the same command again to resume it: parts that OSS has already,
and that are as in the file, are not sent again. With --manifest, this works until the manifest expires;
without it, the command then starts a new upload. The parts of an upload that is never resumed stay in the
bucket until the upload is aborted or a lifecycle rule of the bucket deletes them.

If UPCALL_DATABASE_URL is set, each upload that the command issues is written to the ledger there, as with
issuer put.

The exit status is 0 if every file is stored with the right CRC-64 and, if it has a callback, reported. It is
2 if a setting is wrong, and 1 if anything else went wrong, for example if a file is stored but its callback
failed (203 CallbackFailed). The message then says what may still record the upload.`
}

// An uploadJob is one file to upload.
type uploadJob struct {
	name   string // as it was given
	source *uploader.Source

	// task finds or makes the manifest. It is called when the upload starts, because URLs
	// expire.
	task func(ctx context.Context, up *uploader.Uploader, w fileMeter) (uploader.Task, error)
}

// Run uploads the files. kong calls it.
func (c *uploadCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio, line *kong.Context) error {
	// Half as much garbage as usual, so that the program stays small even with a manifest of
	// 10,000 parts, which is most of what it keeps in memory.
	debug.SetGCPercent(50)
	signs := c.Manifest == ""
	up, err := uploader.New(uploader.Config{Parallel: c.Parallel, Attempts: c.Attempts, Signs: signs, Unlisted: signs && !hasLedger(env)})
	jobs, openErr := c.open()
	defer closeAll(jobs)
	closeLedger, manifestErr := func() {}, error(nil)
	if c.Manifest != "" {
		manifestErr = c.useManifest(jobs, env, std.In, line)
	} else {
		closeLedger, manifestErr = c.makeManifests(ctx, jobs, env, std.Err)
	}
	defer closeLedger()
	if err := fault.Join(fault.Prefix("--", err), openErr, manifestErr); err != nil {
		return cli.Usage(err)
	}
	var total int64
	for _, job := range jobs {
		total += job.source.Size()
	}
	meter := newMeter(std.Err, total, cli.IsTerminal(std.Err))
	defer meter.end()
	return uploadAll(ctx, up, jobs, c.Parallel, meter, std.Out)
}

// open opens all files, so that a wrong name is found before the first file is sent.
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
		job.source.Close() // it was only read
	}
}

// useManifest gives the manifest to the only job.
func (c *uploadCommand) useManifest(jobs []*uploadJob, env cli.Env, in io.Reader, line *kong.Context) error {
	faults := checkAlone(line)
	if len(c.Files) > 1 {
		faults.AddAt("--manifest", "it is for one file, but there are %d", len(c.Files))
	}
	m, err := readManifest(c.Manifest, in)
	if err != nil {
		return fault.Join(faults, fault.In("--manifest", err))
	}
	var state *uploader.State
	for _, job := range jobs {
		faults.Add(fault.In("--manifest", uploader.Fit(m, job.source.Size())))
		if m.Multipart != nil {
			state, err = c.state(env, job.name, m.Multipart.Bucket, m.Multipart.Key, m.Multipart.OSSUploadID)
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

// checkAlone rejects flags for what the manifest says. It accepts variables, which may be
// set for other commands.
func checkAlone(line *kong.Context) fault.List {
	var faults fault.List
	for _, element := range line.Path {
		if flag := element.Flag; flag != nil && !element.Resolved && flag.Group != nil {
			faults.AddAt("--"+flag.Name, "the manifest says that already; leave one of them out")
		}
	}
	return faults
}

// uploadAll uploads the jobs, several at once. It prints the answers in the order of the
// files, each as soon as all before it are printed.
func uploadAll(ctx context.Context, up *uploader.Uploader, jobs []*uploadJob, parallel int, meter *meter, out io.Writer) error {
	type result struct {
		answer json.RawMessage
		err    error
	}
	results := make([]chan result, len(jobs))
	for i := range results {
		results[i] = make(chan result, 1)
	}
	var group errgroup.Group
	group.SetLimit(parallel)
	go func() {
		for i, job := range jobs {
			group.Go(func() error {
				answer, err := job.run(ctx, up, meter)
				results[i] <- result{answer, err}
				return nil
			})
		}
	}()
	var errs []error
	var open []string // the files that are not uploaded
	for i, done := range results {
		got := <-done
		errs = append(errs, got.err)
		if got.err != nil {
			open = append(open, fault.Readable(jobs[i].name))
		}
		if got.answer != nil {
			errs = append(errs, printJSON(out, got.answer))
		}
	}
	if ctx.Err() == nil {
		return errors.Join(errs...)
	}
	errs = slices.DeleteFunc(errs, func(err error) bool { return errors.Is(err, ctx.Err()) })
	again := errors.New("interrupted; run the same command again")
	if len(open) < len(jobs) {
		again = fmt.Errorf("interrupted; run the command again with only the files that are not uploaded yet: %s", strings.Join(open, " "))
	}
	return errors.Join(slices.Insert(errs, 0, again)...)
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
