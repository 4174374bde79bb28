package sample

import (
	"context"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/eventstore"
	"upcall/internal/feed"
	"upcall/internal/rollup"
)

// A Progress says how far [Count] is.
type Progress struct {
	// Uploads is how many uploads are counted.
	Uploads int
	// Counted says that these are all.
	Counted bool
	// Stored is of how many days it is stored what became of their uploads, and Days how many there are.
	Stored, Days int
}

// Count runs the roll-ups' consumer, as a receiver does, until it has read all of the log and has stored all
// days that are over. The pool is from eventstore.OpenFeed. Report is told how far it is, each second.
func Count(ctx context.Context, pool *pgxpool.Pool, logger *slog.Logger, report func(Progress)) error {
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
	working, stop := context.WithCancel(ctx)
	done := make(chan struct{}, 2)
	go func() { worker.Run(working); done <- struct{}{} }()
	go func() { log.Run(working); done <- struct{}{} }()
	defer func() { stop(); <-done; <-done }()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		var p Progress
		behind, err := worker.Behind(ctx)
		p.Counted = len(behind) == 0
		if err == nil {
			p.Uploads, err = counted(ctx, pool)
		}
		if err == nil {
			p.Stored, p.Days, err = worker.Days(ctx)
		}
		if err != nil {
			// Like the worker's own, it may pass.
			logger.WarnContext(ctx, "it is not known how much is counted", slog.String("error", err.Error()))
			continue
		}
		if report(p); p.Counted && p.Stored == p.Days {
			return nil
		}
	}
}

// counted returns how many uploads are counted.
func counted(ctx context.Context, pool *pgxpool.Pool) (n int, err error) {
	_, err = eventstore.Exec(ctx, pool, "", `
		SELECT coalesce(sum(uploads), 0)::bigint FROM upcall.rollup_hourly
		WHERE generation = (SELECT generation FROM upcall.rollup_generations WHERE stage = 'current')`,
		func(rows pgx.Rows) (err error) {
			n, err = pgx.CollectExactlyOneRow(rows, pgx.RowTo[int])
			return err
		})
	return n, err
}
