package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"upcall/internal/eventstore"
	"upcall/internal/spool"
	"upcall/migrations"
)

type spoolCmd struct {
	List   spoolListCmd   `cmd:"" help:"Show what waits in the spool, and what PostgreSQL refused."`
	Export spoolExportCmd `cmd:"" help:"Print every callback in the spool as a line of JSON."`
	Drain  spoolDrainCmd  `cmd:"" help:"Move what waits to PostgreSQL now. A running receiver does so by itself."`

	Retry   spoolRetryCmd   `cmd:"" help:"Have callbacks that PostgreSQL refused wait again."`
	Discard spoolDiscardCmd `cmd:"" help:"Delete callbacks that PostgreSQL refused. They are lost: export them first."`
}

type spoolListCmd struct{ spoolDir }

type spoolExportCmd struct {
	spoolDir
	File string `placeholder:"PATH" help:"A damaged file that was set aside: print what is intact in it."`
}

type spoolDrainCmd struct {
	spoolDir
	database
}

// drainBatch is how many callbacks share a commit.
const drainBatch = 512

// dir returns the directory, or what to do where there is none.
func (d *spoolDir) dir() (string, error) {
	if d.SpoolDir == "" {
		return "", &usageError{errors.New("no spool: set UPCALL_SPOOL_DIR to the receiver's")}
	}
	return d.SpoolDir, nil
}

func (cmd *spoolListCmd) Run(ctx context.Context, p *program) error {
	dir, err := cmd.dir()
	if err != nil {
		return err
	}
	table := newEntryTable(p.stdout)
	waiting, refused := 0, 0
	err = spool.Read(ctx, dir, func(e spool.Entry) error {
		if e.Reason == "" {
			waiting++
		} else {
			refused++
		}
		return table.add(e)
	})
	if err != nil {
		return err
	}
	return table.end("%d waiting, %d refused\n", waiting, refused)
}

// An entryTable shows callbacks, one a line.
type entryTable struct {
	out     io.Writer
	aligned *tabwriter.Writer
}

func newEntryTable(out io.Writer) entryTable {
	t := entryTable{out, tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)}
	fmt.Fprintln(t.aligned, "ARRIVED\tEVENT\tBUCKET\tOBJECT\tSTATE")
	return t
}

func (t entryTable) add(e spool.Entry) error {
	state := "waits"
	if e.Reason != "" {
		state = "refused: " + e.Reason
	}
	_, err := fmt.Fprintf(t.aligned, "%s\t%s\t%s\t%s\t%s\n", e.ReceivedAt.UTC().Format(time.RFC3339),
		e.ID, printable(e.Bucket), printable(e.Object), printable(state))
	return err
}

// end adds a sum below.
func (t entryTable) end(format string, args ...any) error {
	if err := t.aligned.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	_, err := fmt.Fprintf(t.out, format, args...)
	return err
}

// printable quotes what would move a terminal's cursor or break the table: an object key
// is whatever an uploader chose.
func printable(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}

func (cmd *spoolExportCmd) Run(ctx context.Context, p *program) error {
	out := bufio.NewWriter(p.stdout)
	line := func(e spool.Entry) error {
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

func (cmd *spoolDrainCmd) Run(ctx context.Context, p *program) error {
	dir, err := cmd.dir()
	if err != nil {
		return err
	}
	return cmd.with(ctx, p, func(url string) error { return drain(ctx, p, dir, url) })
}

func drain(ctx context.Context, p *program, dir, databaseURL string) error {
	if _, err := migrations.Status(ctx, databaseURL); err != nil { // it says best what is wrong with a database
		return err
	}
	pool, err := eventstore.Open(ctx, databaseURL)
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
	queue, err := spool.Open(ctx, spool.Config{Dir: dir, Logger: slog.New(slog.NewTextHandler(p.stderr, nil))})
	if errors.Is(err, spool.ErrInUse) {
		return fmt.Errorf("%w; a running receiver drains its spool by itself", err)
	}
	if err != nil {
		return err
	}
	total := 0
	for err == nil && queue.Stats().Queued > 0 {
		var moved int
		moved, err = queue.Move(ctx, recorder, drainBatch)
		total += moved
	}
	stats := queue.Stats()
	fmt.Fprintf(p.stdout, "%d moved, %d waiting, %d refused\n", total, stats.Queued, stats.Rejected)
	return errors.Join(err, queue.Close())
}
