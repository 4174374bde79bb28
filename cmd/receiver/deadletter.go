package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/google/uuid"

	"upcall/internal/cli"
	"upcall/internal/spool"
)

// deadLetterFlags name the dead letters to change. None is chosen by default.
type deadLetterFlags struct {
	spoolDir
	Events []string `arg:"" optional:"" name:"event" help:"IDs of the events, as receiver spool list shows them."`
	All    bool     `help:"All dead letters."`
}

type spoolRetryCommand struct{ deadLetterFlags }

type spoolDiscardCommand struct{ deadLetterFlags }

func (cmd *spoolRetryCommand) Run(ctx context.Context, std cli.Stdio) error {
	return cmd.change(ctx, std, "to be retried", (*spool.Spool).Retry)
}

func (cmd *spoolDiscardCommand) Run(ctx context.Context, std cli.Stdio) error {
	return cmd.change(ctx, std, "discarded", (*spool.Spool).Discard)
}

// change applies change to the chosen callbacks and prints them.
func (c *deadLetterFlags) change(ctx context.Context, std cli.Stdio, done string, change func(*spool.Spool, []uuid.UUID) error) error {
	dir, err := c.dir()
	if err != nil {
		return err
	}
	wanted, err := c.wanted()
	if err != nil {
		return cli.Usage(err)
	}
	chosen, table, err := c.find(ctx, std, dir, wanted)
	if err != nil {
		return err
	}
	queue, err := spool.Open(ctx, spool.Config{Dir: dir, Logger: slog.New(slog.NewTextHandler(std.Err, nil))})
	if errors.Is(err, spool.ErrInUse) {
		return fmt.Errorf("%w; stop the receiver first", err)
	}
	if err != nil {
		return err
	}
	if err := errors.Join(change(queue, chosen), queue.Close()); err != nil {
		return err
	}
	stats := queue.Stats()
	return table.end("%d %s, %d waiting, %d dead\n", len(chosen), done, stats.Queued, stats.DeadLetters)
}

// wanted returns the given IDs.
func (c *deadLetterFlags) wanted() ([]uuid.UUID, error) {
	if c.All == (len(c.Events) > 0) {
		return nil, errors.New("give the IDs of dead letters, as receiver spool list shows them, or --all")
	}
	var wanted []uuid.UUID
	for _, given := range c.Events {
		id, err := uuid.Parse(given)
		if err != nil {
			return nil, fmt.Errorf("%q is not an event ID: receiver spool list shows them", given)
		}
		wanted = append(wanted, id)
	}
	return wanted, nil
}

// find returns the chosen callbacks, and a table of them that is not printed yet.
func (c *deadLetterFlags) find(ctx context.Context, std cli.Stdio, dir string, wanted []uuid.UUID) ([]uuid.UUID, entryTable, error) {
	var chosen []uuid.UUID
	table := newEntryTable(std.Out)
	err := spool.Read(ctx, dir, func(e spool.Entry) error {
		if e.Reason == "" || !c.All && !slices.Contains(wanted, e.ID) {
			return nil
		}
		chosen = append(chosen, e.ID)
		return table.add(e)
	})
	for _, id := range wanted {
		if err == nil && !slices.Contains(chosen, id) {
			err = fmt.Errorf("%w: %s: receiver spool list shows all", spool.ErrNoDeadLetter, id)
		}
	}
	return chosen, table, err
}
