package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"text/tabwriter"
	"time"

	"upcall/internal/cli"
	"upcall/internal/eventstore"
	"upcall/internal/fault"
	"upcall/internal/kept"
	"upcall/internal/spool"
	"upcall/migrations"
)

type spoolCommand struct {
	List   spoolListCommand   `cmd:"" help:"List waiting callbacks and dead letters."`
	Export spoolExportCommand `cmd:"" help:"Print each callback in the spool as a line of JSON."`
	Drain  spoolDrainCommand  `cmd:"" help:"Move waiting callbacks to PostgreSQL now. A running receiver does so by itself."`

	Retry   spoolRetryCommand   `cmd:"" help:"Retry dead letters, which PostgreSQL could not hold."`
	Discard spoolDiscardCommand `cmd:"" help:"Delete dead letters permanently. To keep a copy, export them first."`
}

// spoolDir says where the spool is, for every command that needs it.
type spoolDir struct {
	SpoolDir string `setting:"UPCALL_SPOOL_DIR" placeholder:"DIR" help:"${spool_dir}"`
}

type spoolListCommand struct{ spoolDir }

type spoolExportCommand struct {
	spoolDir
	File string `placeholder:"PATH" help:"Print the intact callbacks of a damaged file that was set aside."`
}

type spoolDrainCommand struct {
	spoolDir
	database
}

// drainBatch is how many callbacks share a commit.
const drainBatch = 512

// drainPause is between attempts to move callbacks that PostgreSQL fails.
const drainPause = 100 * time.Millisecond

// dir returns the directory, or an error that says how to set it.
func (d *spoolDir) dir() (string, error) {
	if d.SpoolDir == "" {
		return "", cli.Usage(errors.New("no spool: set UPCALL_SPOOL_DIR to that of the receiver"))
	}
	return d.SpoolDir, nil
}

func (cmd *spoolListCommand) Run(ctx context.Context, std cli.Stdio) error {
	dir, err := cmd.dir()
	if err != nil {
		return err
	}
	table := newEntryTable(std.Out)
	waiting, dead := 0, 0
	err = spool.Read(ctx, dir, func(e kept.Entry) error {
		if e.Reason == "" {
			waiting++
		} else {
			dead++
		}
		return table.add(e)
	})
	if err != nil {
		return err
	}
	return table.end("%d waiting, %d dead\n", waiting, dead)
}

// An entryTable prints callbacks, one a line.
type entryTable struct {
	out     io.Writer
	aligned *tabwriter.Writer
}

func newEntryTable(out io.Writer) entryTable {
	t := entryTable{out, tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)}
	fmt.Fprintln(t.aligned, "ARRIVED\tEVENT\tBUCKET\tOBJECT\tSTATE")
	return t
}

func (t entryTable) add(e kept.Entry) error {
	state := "waiting"
	if e.Reason != "" {
		state = "dead: " + e.Reason
	}
	_, err := fmt.Fprintf(t.aligned, "%s\t%s\t%s\t%s\t%s\n", e.ReceivedAt.UTC().Format(time.RFC3339),
		e.ID, fault.Readable(e.Bucket), fault.Readable(e.Object), fault.Readable(state))
	return err
}

// end prints the table and a summary.
func (t entryTable) end(format string, args ...any) error {
	if err := t.aligned.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	_, err := fmt.Fprintf(t.out, format, args...)
	return err
}

func (cmd *spoolExportCommand) Run(ctx context.Context, std cli.Stdio) error {
	out := bufio.NewWriter(std.Out)
	line := func(e kept.Entry) error {
		out.Write(e.JSON)
		return out.WriteByte('\n') // bufio keeps the first error
	}
	var err error
	if cmd.File != "" {
		err = spool.ReadDamaged(cmd.File, line)
	} else {
		dir, missing := cmd.dir()
		if missing != nil {
			return missing
		}
		err = spool.Read(ctx, dir, line)
	}
	return errors.Join(err, out.Flush())
}

func (cmd *spoolDrainCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	dir, err := cmd.dir()
	if err != nil {
		return err
	}
	return cmd.with(ctx, env, std, func(url string) error { return drain(ctx, std, dir, url) })
}

func drain(ctx context.Context, std cli.Stdio, dir, databaseURL string) error {
	if _, err := migrations.Status(ctx, databaseURL); err != nil { // has the clearest error for an unreachable database
		return err
	}
	pool, err := eventstore.OpenRecorder(ctx, databaseURL)
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := migrations.Check(ctx, pool); err != nil {
		return err
	}
	recorder, err := eventstore.NewRecorder(eventstore.Config{Pool: pool})
	if err != nil {
		return err
	}
	defer recorder.Close()
	queue, err := spool.Open(ctx, spool.Config{Dir: dir, Logger: slog.New(slog.NewTextHandler(std.Err, nil))})
	if errors.Is(err, spool.ErrInUse) {
		return fmt.Errorf("%w; a running receiver drains its spool by itself", err)
	}
	if err != nil {
		return err
	}
	erasures, err := eventstore.Erasures(ctx, pool, time.Time{})
	if err == nil {
		_, err = queue.Erase(ctx, erasures) // so that no remains of it stay in the file
	}
	if err != nil {
		return errors.Join(err, queue.Close())
	}
	total := 0
	for queue.Stats().Queued > 0 {
		var moved int
		moved, err = queue.Move(ctx, recorder.Record, drainBatch)
		total += moved
		if moved == 0 && err != nil {
			break
		}
		if moved == 0 { // those that are left will be tried again
			time.Sleep(drainPause)
		}
	}
	stats := queue.Stats()
	fmt.Fprintf(std.Out, "%d moved, %d waiting, %d dead\n", total, stats.Queued, stats.DeadLetters)
	return errors.Join(err, queue.Close())
}
