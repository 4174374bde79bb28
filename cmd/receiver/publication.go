package main

import (
	"context"
	"fmt"

	"upcall/internal/cli"
	"upcall/internal/eventstore"
	"upcall/internal/fault"
	"upcall/migrations"
)

type publicationCommand struct {
	Create publicationCreateCommand `cmd:"" help:"Publish new events, as the publication upcall_events."`
	Drop   publicationDropCommand   `cmd:"" help:"End the publication. Slots stay, and keep WAL until they are dropped."`
}

type publicationCreateCommand struct{ database }

type publicationDropCommand struct{ database }

// Help is shown below the summary of the command.
func (*publicationCreateCommand) Help() string {
	return `Subscribers get each new event by PostgreSQL's logical replication; events that are there already only by
the subscription's own first copy. Run this with the role that owns the tables.

A replication slot keeps WAL until its subscriber has read it. If a subscriber is away, the disk fills, and
then PostgreSQL stops. Set max_slot_wal_keep_size, and alert on upcall_slot_lag_bytes. See docs/export.md.`
}

// slotWarning is printed where a slot may be made.
const slotWarning = "receiver: warning: a replication slot keeps WAL until its subscriber has read it, and can fill the disk: " +
	"set max_slot_wal_keep_size, alert on upcall_slot_lag_bytes, and drop slots that nothing reads"

func (cmd *publicationCreateCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	return cmd.with(ctx, env, std, func(url string) error {
		pool, err := eventstore.Open(ctx, url)
		if err != nil {
			return err
		}
		defer pool.Close()
		if err := migrations.Check(ctx, pool); err != nil {
			return fault.OneLine(err)
		}
		level, err := eventstore.WALLevel(ctx, pool)
		if err == nil {
			err = eventstore.CreatePublication(ctx, pool)
		}
		if err != nil {
			return fault.OneLine(err)
		}
		fmt.Fprintln(std.Err, slotWarning)
		if level != "logical" {
			fmt.Fprintf(std.Err, "receiver: warning: wal_level is %s, with which nothing can subscribe: "+
				"set it to logical and restart PostgreSQL\n", level)
		}
		_, err = fmt.Fprintln(std.Out, "new events are published as "+eventstore.Publication)
		return err
	})
}

func (cmd *publicationDropCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	return cmd.with(ctx, env, std, func(url string) error {
		pool, err := eventstore.Open(ctx, url)
		if err != nil {
			return err
		}
		defer pool.Close()
		if err := eventstore.DropPublication(ctx, pool); err != nil {
			return fault.OneLine(err)
		}
		slots, err := eventstore.LogicalSlots(ctx, pool)
		if err != nil {
			return fault.OneLine(err)
		}
		for _, slot := range slots {
			fmt.Fprintf(std.Err, "receiver: warning: the slot %s keeps %d bytes of WAL; if it was for this publication, "+
				"run SELECT pg_drop_replication_slot('%[1]s')\n", fault.Readable(slot.Name), slot.Lag)
		}
		_, err = fmt.Fprintln(std.Out, "events are not published")
		return err
	})
}
