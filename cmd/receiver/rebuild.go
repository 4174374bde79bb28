package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"

	"upcall/internal/cli"
	"upcall/internal/eventstore"
	"upcall/internal/fault"
	"upcall/internal/feed"
	"upcall/internal/rollup"
	"upcall/migrations"
)

type rebuildCommand struct {
	database
	Name string `arg:"" help:"rollup: hourly counts and objects."`
}

// Help is shown below the summary of the command.
func (*rebuildCommand) Help() string {
	return `Counts all events again, from the oldest that the database has, beside running receivers. Until it is
complete, queries see what was there before; then all of it is replaced at once. What retention has dropped
cannot be counted again, and is kept as it is. Only that part stops the counting while it is copied.
If this is interrupted, a running receiver goes on with it.`
}

func (cmd *rebuildCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	if cmd.Name != rollup.Consumer {
		return cli.Usage(fault.New(rollup.ErrName, "NAME", "write rollup", "there is no roll-up %q", cmd.Name))
	}
	return cmd.with(ctx, env, std, func(url string) error {
		if _, err := migrations.Status(ctx, url); err != nil { // has the clearest error for an unreachable database
			return err
		}
		pool, err := eventstore.OpenFeed(ctx, url)
		if err != nil {
			return err
		}
		defer pool.Close()
		if err := migrations.Check(ctx, pool); err != nil {
			return err
		}
		logger := slog.New(slog.NewTextHandler(std.Err, nil))
		log, err := feed.New(feed.Config{Pool: pool, Logger: logger})
		if err != nil {
			return err
		}
		consumers, err := feed.NewConsumers(feed.ConsumersConfig{Pool: pool})
		if err != nil {
			return err
		}
		worker, err := rollup.New(rollup.Config{Pool: pool, Log: log, Consumers: consumers, Logger: logger})
		if err != nil {
			return err
		}
		if err := rollup.Rebuild(ctx, pool); err != nil {
			return fault.OneLine(err)
		}
		// This process or a receiver does the work, whichever gets the leases.
		working, stop := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() { defer close(done); worker.Run(working) }()
		defer func() { stop(); <-done }()
		return waitForRebuild(ctx, worker, std.Out, std.Err)
	})
}

// waitForRebuild reports how far the rebuild is until it is done.
func waitForRebuild(ctx context.Context, worker *rollup.Worker, out, progress io.Writer) error {
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	reported := time.Now()
	for {
		p, err := worker.Progress(ctx)
		if err != nil {
			return fault.OneLine(err)
		}
		if p.Done {
			fmt.Fprintln(out, "hourly counts and objects were built again")
			return nil
		}
		if time.Since(reported) > 5*time.Second {
			reported = time.Now()
			fmt.Fprintln(progress, p)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("stopped waiting; a running receiver goes on with it: %w", context.Cause(ctx))
		}
	}
}
