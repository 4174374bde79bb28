// Package sample fills a database with a year of plausible uploads: for queries to be tried, tested
// and timed on. The same configuration makes the same rows.
//
// The uploads have the shape of a Chinese company's: few at night and at weekends, by users of whom
// few upload much, more from month to month. Some objects are overwritten, some contents uploaded
// again, some URLs used twice or never, some uploads revoked, some told of by something else than a
// callback, or twice; a few events are recorded hours late, and a few lack nearly everything.
package sample

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/eventstore"
	"upcall/internal/feed"
)

// ErrNotEmpty says that the database has events already.
var ErrNotEmpty = errors.New("database has events already")

// Config says what to make.
type Config struct {
	// Pool is from eventstore.Open. Required.
	Pool *pgxpool.Pool
	// Feed is from eventstore.OpenFeed. Required.
	Feed *pgxpool.Pool
	// Events is how many there are in the end. Required.
	Events int
	// Seed selects one of many databases that differ in details.
	Seed uint64
	// Until is when the year ends. Required.
	Until time.Time
	// PerTransaction is the most events that are written in one transaction. Default 5000.
	PerTransaction int
	// Report is told how many events there are, now and then. Default none.
	Report func(events int)
}

const (
	defaultPerTransaction = 5000
	// copyRows is the most rows that one statement writes, because statements have a timeout.
	copyRows = 5000
)

// Fill makes the rows, those that consumers of the log make apart: see [Count].
func Fill(ctx context.Context, c Config) error {
	if c.Pool == nil || c.Feed == nil || c.Events < 1 || c.Until.IsZero() || c.PerTransaction < 0 {
		return errors.New("sample config: Pool, Feed, a positive number of Events, and Until are required")
	}
	if c.PerTransaction == 0 {
		c.PerTransaction = defaultPerTransaction
	}
	if c.Report == nil {
		c.Report = func(int) {}
	}
	var there bool
	err := c.Pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM upcall.upload_events) OR EXISTS (SELECT FROM upcall.issued_uploads)
		OR EXISTS (SELECT FROM upcall.hook_endpoints)`).Scan(&there)
	if err == nil && there {
		err = ErrNotEmpty
	}
	if err != nil {
		return fmt.Errorf("fill database: %w", err)
	}
	m := newMaker(c.Seed, c.Events, c.Until)
	for month := m.calendar.begins; month.Before(c.Until.AddDate(0, 1, 0)); month = month.AddDate(0, 1, 0) {
		if err := eventstore.EnsurePartitions(ctx, c.Pool, month); err != nil {
			return err
		}
	}
	if err := fillKeys(ctx, c.Pool, m); err != nil {
		return fmt.Errorf("fill API keys: %w", err)
	}
	if err := fillUploads(ctx, c, m); err != nil {
		return fmt.Errorf("fill uploads: %w", err)
	}
	if err := fillRefusals(ctx, c.Pool, m); err != nil {
		return fmt.Errorf("fill refusals: %w", err)
	}
	log, err := feed.New(feed.Config{Pool: c.Feed, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	if err := fillHooks(ctx, c.Pool, log, m); err != nil {
		return fmt.Errorf("fill hooks: %w", err)
	}
	return nil
}

// fillUploads writes events and ledger. Rows are made while those before are written.
func fillUploads(ctx context.Context, c Config, m *maker) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	batches := make(chan *batch, 2)
	go func() {
		defer close(batches)
		m.batches(c.PerTransaction, func(b *batch) bool {
			select {
			case batches <- b:
				return true
			case <-ctx.Done():
				return false
			}
		})
	}()
	done := 0
	for b := range batches {
		report := func(written int) { c.Report(done + written) }
		if err := pgx.BeginFunc(ctx, c.Pool, func(tx pgx.Tx) error { return b.write(ctx, tx, report) }); err != nil {
			return err
		}
		done += len(b.events)
	}
	return ctx.Err()
}
