package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/google/uuid"

	"upcall/internal/cli"
	"upcall/internal/kept"
	"upcall/internal/spool"
)

// chosenLetters name the dead letters to change. None is chosen by default.
type chosenLetters struct {
	Events []string `arg:"" optional:"" name:"event" help:"IDs of the events, as list shows them."`
	All    bool     `help:"All dead letters."`
}

// deadLetterFlags name dead letters of a spool.
type deadLetterFlags struct {
	spoolDir
	chosenLetters
}

type spoolRetryCommand struct{ deadLetterFlags }

type spoolDiscardCommand struct{ deadLetterFlags }

func (cmd *spoolRetryCommand) Run(ctx context.Context, std cli.Stdio) error {
	return cmd.change(ctx, std, spool.ActionRetry, "to be retried")
}

func (cmd *spoolDiscardCommand) Run(ctx context.Context, std cli.Stdio) error {
	return cmd.change(ctx, std, spool.ActionDiscard, "discarded")
}

// change applies an action to the chosen callbacks and prints them. A receiver that uses the
// spool does it.
func (c *deadLetterFlags) change(ctx context.Context, std cli.Stdio, action, done string) error {
	dir, err := c.dir()
	if err != nil {
		return err
	}
	wanted, err := c.wanted("receiver spool list")
	if err != nil {
		return cli.Usage(err)
	}
	config := spool.Config{Dir: dir, Logger: slog.New(slog.NewTextHandler(std.Err, nil))}
	table, changed := newEntryTable(std.Out), 0
	stats, err := spool.Change(ctx, config, spool.Request{Action: action, All: c.All, Events: wanted}, func(e kept.Entry) error {
		changed++
		return table.add(e)
	})
	if errors.Is(err, spool.ErrInUse) {
		err = fmt.Errorf("%w; try again, or stop the receiver first", err)
	}
	if err != nil && changed == 0 {
		return err
	}
	return errors.Join(err, table.end("%d %s, %d waiting, %d dead\n", changed, done, stats.Queued, stats.DeadLetters))
}

// wanted returns the given IDs. list is the command that shows them.
func (c *chosenLetters) wanted(list string) ([]uuid.UUID, error) {
	if c.All == (len(c.Events) > 0) {
		return nil, fmt.Errorf("give the IDs of dead letters, as %s shows them, or --all", list)
	}
	var wanted []uuid.UUID
	for _, given := range c.Events {
		id, err := uuid.Parse(given)
		if err != nil {
			return nil, fmt.Errorf("%q is not an event ID: %s shows them", given, list)
		}
		wanted = append(wanted, id)
	}
	return wanted, nil
}
