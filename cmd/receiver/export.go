package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"time"

	"upcall/internal/cli"
	"upcall/internal/eventstore"
	"upcall/internal/export"
	"upcall/internal/fault"
	"upcall/internal/oss"
	"upcall/internal/ossrule"
	"upcall/migrations"
)

type exportCommand struct {
	database
	Format string `placeholder:"FORMAT" help:"csv, jsonl or parquet. Required."`
	Out    string `placeholder:"PATH" help:"${export_out}"`
	Since  string `placeholder:"TIME" help:"${export_since}"`
	Until  string `placeholder:"TIME" help:"${export_until}"`
	Bucket string `placeholder:"NAME" help:"Only events of this bucket. Default all."`

	cli.OSSFlags `group:"oss"`
}

// Help is shown below the summary of the command.
func (*exportCommand) Help() string {
	return `A file appears when it is complete. In a directory or under a prefix of a bucket there is one for each day
of receipt in UTC, day=2026-11-26/part-0.parquet; if the command is killed, run it again and it continues
with the day that was under way.

It reads in short statements, so it blocks nothing, and the URL can be a replica's. It needs the right
to SELECT from upcall.upload_events, and no other. See docs/export.md.`
}

// standardOutput is the --out that stands for it.
const standardOutput = "-"

func (cmd *exportCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	cfg, err := cmd.config(env, std.Out)
	_, urlErr := cmd.required(env)
	if err := fault.Join(err, urlErr); err != nil {
		return cli.Usage(err)
	}
	limitMemory()
	return cmd.with(ctx, env, std, func(url string) error {
		if _, err := migrations.Status(ctx, url); err != nil { // has the clearest error for an unreachable database
			return err
		}
		pool, err := eventstore.OpenPages(ctx, url)
		if err != nil {
			return err
		}
		defer pool.Close()
		cfg.Source = eventstore.NewPages(pool)
		bar := cli.NewBar(std.Err)
		cfg.Report = func(p export.Progress) { bar.Set(p.Share, fmt.Sprintf("%d events", p.Rows)) }
		got, err := export.Run(ctx, cfg)
		bar.End()
		if err != nil {
			if errors.Is(err, export.ErrOther) {
				return cli.Usage(fault.In("--out", err))
			}
			return fault.OneLine(errors.Join(eventstore.Mistake(err), err))
		}
		begun := ""
		if got.Continue {
			begun = "continued; now "
		}
		fmt.Fprintf(std.Err, "receiver: %sexported %d events, %d bytes\n", begun, got.Rows, got.Bytes)
		return nil
	})
}

// limitMemory has the garbage collector work more often than it does by default, which takes half
// as much memory again. What an export allocates is short-lived: pages of events, and their columns.
func limitMemory() {
	debug.SetGCPercent(40)
	debug.SetMemoryLimit(56 << 20) // a goal, not a limit that would fail
}

// config reads the flags. The error joins all mistakes.
func (cmd *exportCommand) config(env cli.Env, out io.Writer) (cfg export.Config, err error) {
	var faults fault.List
	cfg = export.Config{Bucket: cmd.Bucket, Now: time.Now}
	format, known := export.FormatNamed(cmd.Format)
	if cfg.Format = format; !known {
		faults.AddAt("--format", "%q is unknown; use csv, jsonl or parquet", cmd.Format)
	}
	if cmd.Bucket != "" {
		faults.Add(fault.In("--bucket", ossrule.CheckBucket(cmd.Bucket)))
	}
	var timeErr error
	cfg.Since, timeErr = parseTime("--since", cmd.Since)
	faults.Add(timeErr)
	cfg.Until, timeErr = parseTime("--until", cmd.Until)
	faults.Add(timeErr)
	var outErr error
	if cfg.Target, outErr = cmd.target(env, out); outErr != nil {
		faults.Add(outErr)
	} else {
		if known && export.IsFile(cmd.Out) && !strings.HasSuffix(cmd.Out, "."+cmd.Format) {
			faults.AddAt("--out", "%q does not end in .%s, the format; change one of them", cmd.Out, cmd.Format)
		}
		faults.Add(fault.Prefix("--", cfg.Check()))
	}
	return cfg, faults.Err()
}

// target reads --out.
func (cmd *exportCommand) target(env cli.Env, out io.Writer) (export.Target, error) {
	switch {
	case cmd.Out == "":
		return export.Target{}, fault.At("--out", "give a file, a directory, oss://BUCKET/PREFIX, or - for standard output")
	case cmd.Out == standardOutput && cmd.Format == "parquet" && cli.IsTerminal(out):
		return export.Target{}, fault.At("--out", "Parquet is binary, and standard output is a terminal; give a file")
	case cmd.Out == standardOutput:
		return export.Standard(out), nil
	}
	return targetAt("--out", cmd.Out, &cmd.OSSFlags, env)
}

// targetAt reads a path, or a place in OSS, that a setting names.
func targetAt(setting, place string, access *cli.OSSFlags, env cli.Env) (export.Target, error) {
	rest, inOSS := strings.CutPrefix(place, "oss://")
	switch {
	case !inOSS && strings.Contains(place, "://"):
		return export.Target{}, fault.At(setting, "%q is of a scheme that is unknown; write oss://BUCKET/PREFIX", place)
	case !inOSS:
		return export.Local(place), nil
	}
	bucket, prefix, _ := strings.Cut(rest, "/")
	cfg, err := access.Config(env)
	if prefix != "" {
		err = fault.Join(err, fault.In(setting, ossrule.CheckKey(prefix)))
	}
	if err := fault.Join(fault.In(setting, ossrule.CheckBucket(bucket)), err); err != nil {
		return export.Target{}, err
	}
	client, err := oss.New(cfg)
	if err != nil {
		return export.Target{}, err
	}
	return export.Bucket(client, bucket, prefix), nil
}

// parseTime reads a time, or a day in UTC.
func parseTime(flag, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fault.At(flag, "%q is not a time; write 2026-11-26 for a day in UTC, or 2026-11-26T08:00:00Z", s)
}
