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

	"github.com/alecthomas/kong"
	"golang.org/x/sync/errgroup"

	"upcall/internal/cli"
	"upcall/internal/fault"
	"upcall/internal/manifest"
	"upcall/internal/uploader"
)

// uploadCommand uploads with a given manifest, or with manifests that it makes itself.
type uploadCommand struct {
	Files []string `arg:"" name:"file" help:"The files to upload; with --recursive, folders too."`

	Recursive   bool   `short:"r" setting:"UPCALL_RECURSIVE" help:"${recursive}"`
	FollowLinks bool   `setting:"UPCALL_FOLLOW_LINKS" help:"${follow_links}"`
	Again       bool   `setting:"UPCALL_AGAIN" help:"${again}"`
	LimitRate   string `placeholder:"RATE" setting:"UPCALL_LIMIT_RATE" help:"${limit_rate}"`

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
	return `A key that ends in / gets the file's name appended; several files need such a key. The key / alone
appends it to nothing.

With --recursive, a folder's files get their path within the folder appended: --key in/ makes in/2026/a.jpg of
photos/2026/a.jpg if the folder is photos. Empty folders are passed over, and so are symbolic links, pipes,
sockets and devices in a folder, each with a line that says so. What cannot be read, and a name that no key
can have, fails alone, and the other files are uploaded.

Standard output gets the callback receiver's answers, one line of JSON for each file, in the order of the
files, with the file's name as the member "file" added. An answer that is no JSON object, or has such a member
itself, is in the member "answer" instead. Without a callback nothing is printed. Everything else goes to
standard error.

Files that the same command has uploaded before are not uploaded again: their answer is printed once more. The
same command is one with the same object settings, callback and endpoint; a file is the same if its content is,
which is read only if size or times have changed; and OSS is asked whether the object is still there as it
was, if the credentials allow that (oss:GetObject). So an interrupted command is simply run again. A file that
was being sent when the program was killed is uploaded again. --again uploads all.

A multipart upload that was interrupted is resumed by the same command: parts that OSS has already,
and that are as in the file, are not sent again. With --manifest, this works until the manifest expires;
without it, the command then starts a new upload. The parts of an upload that is never resumed stay in the
bucket until the upload is aborted or a lifecycle rule of the bucket deletes them.

If UPCALL_DATABASE_URL is set, each upload that the command issues is written to the ledger there, as with
issuer put.

The exit status is 0 if every file is stored with the right CRC-64 and, if it has a callback, reported. It is
2 if a setting is wrong, and 1 if anything else went wrong, for example if a file is stored but its callback
failed (203 CallbackFailed). The message then says what may still record the upload.`
}

// Run uploads the files. kong calls it.
func (c *uploadCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio, line *kong.Context) error {
	// Half as much garbage as usual, so that the program stays small even with a manifest of
	// 10,000 parts, which is most of what it keeps in memory.
	debug.SetGCPercent(50)
	signs := c.Manifest == ""
	rate, rateErr := parseRate("--limit-rate", c.LimitRate)
	up, err := uploader.New(uploader.Config{
		Parallel: c.Parallel, Attempts: c.Attempts, Rate: rate, Signs: signs, Unlisted: signs && !hasLedger(env),
	})
	jobs, openErr := c.find(std.Err)
	closeLedger, manifestErr := func() {}, error(nil)
	if c.Manifest != "" {
		manifestErr = c.useManifest(jobs, env, std.In, line)
	} else {
		closeLedger, manifestErr = c.makeManifests(ctx, jobs, env, std.Err)
	}
	defer closeLedger()
	if err := fault.Join(rateErr, fault.Prefix("--", err), openErr, manifestErr); err != nil {
		return cli.Usage(err)
	}
	if len(jobs) == 0 {
		fmt.Fprintln(std.Err, "issuer: there is no file in it, so nothing was uploaded")
		return nil
	}
	if err := jobs[0].finished.load(ctx); err != nil {
		return cli.Usage(err)
	}
	var total int64
	for _, job := range jobs {
		total += job.size
	}
	meter := newMeter(std.Err, total, cli.IsTerminal(std.Err))
	defer meter.end()
	return c.uploadAll(ctx, up, jobs, meter, std.Out)
}

// useManifest gives the manifest to the only job.
func (c *uploadCommand) useManifest(jobs []*uploadJob, env cli.Env, in io.Reader, line *kong.Context) error {
	faults := checkAlone(line)
	switch {
	case c.Recursive:
		faults.AddAt("--manifest", "it is for one file; leave out --recursive")
	case len(c.Files) > 1:
		faults.AddAt("--manifest", "it is for one file, but there are %d", len(c.Files))
	}
	m, err := readManifest(c.Manifest, in)
	if err != nil {
		return fault.Join(faults, fault.In("--manifest", err))
	}
	var state *uploader.State
	for _, job := range jobs {
		faults.Add(fault.In("--manifest", uploader.Fit(m, job.size)))
		if m.Multipart != nil {
			state, err = c.state(env, job.name, m.Multipart.Bucket, m.Multipart.Key, m.Multipart.OSSUploadID)
			faults.Add(err)
		}
		job.task = func(context.Context, *uploader.Uploader, fileMeter, *uploader.Source) (uploader.Task, error) {
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
func (c *uploadCommand) uploadAll(ctx context.Context, up *uploader.Uploader, jobs []*uploadJob, meter *meter, out io.Writer) error {
	type result struct {
		answer json.RawMessage
		err    error
	}
	results := make([]chan result, len(jobs))
	for i := range results {
		results[i] = make(chan result, 1)
	}
	var group errgroup.Group
	group.SetLimit(c.Parallel)
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
	for i, done := range results {
		got := <-done
		errs = append(errs, got.err)
		if got.answer != nil {
			errs = append(errs, meter.print(out, named(jobs[i].name, got.answer)))
		}
	}
	if ctx.Err() == nil {
		return errors.Join(errs...)
	}
	errs = slices.DeleteFunc(errs, func(err error) bool { return errors.Is(err, ctx.Err()) })
	again := errors.New("interrupted; run the same command again")
	if c.Again {
		again = fmt.Errorf("%w, without --again, which would upload everything once more", again)
	}
	return errors.Join(slices.Insert(errs, 0, again)...)
}
