package sample

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/eventstore"
	"upcall/internal/feed"
	"upcall/internal/rollup"
)

// Count runs the roll-ups' consumer, as a receiver does, until it has read all of the log. The pool is
// from eventstore.OpenFeed. Report is told how many uploads it has counted, now and then.
func Count(ctx context.Context, pool *pgxpool.Pool, logger *slog.Logger, report func(uploads int)) error {
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
		behind, err := worker.Behind(ctx)
		n, countErr := counted(ctx, pool)
		if err = errors.Join(err, countErr); err != nil {
			// Like the worker's own, it may pass.
			logger.WarnContext(ctx, "it is not known how much is counted", slog.String("error", err.Error()))
			continue
		}
		if report(n); len(behind) == 0 {
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
