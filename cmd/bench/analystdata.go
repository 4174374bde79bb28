package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/cli"
	"upcall/internal/eventstore"
	"upcall/internal/fault"
	"upcall/internal/sample"
	"upcall/migrations"
)

type analystDataCommand struct {
	DatabaseURL    string `name:"database-url" placeholder:"URL" env:"DATABASE_URL" help:"A database without events. Default ${env}."`
	Rows           int    `default:"10000000" help:"Events."`
	Seed           uint64 `default:"1" help:"Selects one of many databases that differ in details."`
	Until          string `placeholder:"TIME" help:"When the year ends, in RFC 3339; default now."`
	PerTransaction int    `default:"5000" help:"Most events in one transaction."`
	CountOnly      bool   `help:"Only count and store what is not yet, of a database that was filled."`
}

// Run fills the database, has the consumer of the log count and store days, and says how long each took.
func (cmd *analystDataCommand) Run(ctx context.Context, std cli.Stdio) error {
	until := time.Now().Truncate(time.Second)
	var faults fault.List
	if cmd.Until != "" {
		var err error
		if until, err = time.Parse(time.RFC3339, cmd.Until); err != nil {
			faults.AddAt("--until", "%q is not a time; write 2026-11-26T08:00:00Z", cmd.Until)
		}
	}
	if cmd.Rows < 1 || cmd.PerTransaction < 1 {
		faults.AddAt("--rows and --per-transaction", "must be positive")
	}
	patient, err := withoutTimeout(cmd.DatabaseURL)
	faults.Add(err)
	if err := faults.Err(); err != nil {
		return cli.Usage(err)
	}
	if err := migrations.Up(ctx, cmd.DatabaseURL); err != nil {
		return err
	}
	pool, err := eventstore.Open(ctx, patient)
	if err != nil {
		return err
	}
	defer pool.Close()
	feedPool, err := eventstore.OpenFeed(ctx, cmd.DatabaseURL)
	if err != nil {
		return err
	}
	defer feedPool.Close()
	if !cmd.CountOnly {
		if err := cmd.fill(ctx, std, pool, feedPool, until); err != nil {
			return err
		}
	}
	return cmd.count(ctx, std, pool, feedPool)
}

func (cmd *analystDataCommand) fill(ctx context.Context, std cli.Stdio, pool, feedPool *pgxpool.Pool, until time.Time) error {
	began, bar := time.Now(), cli.NewBar(std.Err)
	defer bar.End()
	err := sample.Fill(ctx, sample.Config{
		Pool: pool, Feed: feedPool, Events: cmd.Rows, Seed: cmd.Seed, Until: until, PerTransaction: cmd.PerTransaction,
		Report: func(done int) { bar.Set(float64(done)/float64(cmd.Rows), fmt.Sprintf("%d events", done)) },
	})
	if err != nil {
		return err
	}
	bar.End()
	fmt.Fprintf(std.Out, "filled: %d events of the year until %s, and what belongs to them, %s\n",
		cmd.Rows, until.UTC().Format(time.RFC3339), rate(cmd.Rows, time.Since(began)))
	_, err = pool.Exec(ctx, "VACUUM (ANALYZE) upcall.upload_events, upcall.issued_uploads, upcall.callback_ids, upcall.revoked_uploads")
	return err
}

func (cmd *analystDataCommand) count(ctx context.Context, std cli.Stdio, pool, feedPool *pgxpool.Pool) error {
	began, bar := time.Now(), cli.NewBar(std.Err)
	defer bar.End()
	first, last := -1, sample.Progress{}
	var counted time.Time
	logger := slog.New(slog.NewTextHandler(std.Err, nil))
	err := sample.Count(ctx, feedPool, logger, func(p sample.Progress) {
		if last = p; first < 0 {
			first = p.Uploads
		}
		if !p.Counted {
			bar.Set(float64(p.Uploads)/float64(cmd.Rows), fmt.Sprintf("%d uploads counted", p.Uploads))
			return
		}
		if counted.IsZero() {
			counted = time.Now()
		}
		bar.Set(float64(p.Stored)/float64(max(p.Days, 1)), fmt.Sprintf("%d of %d days stored", p.Stored, p.Days))
	})
	if err != nil {
		return err
	}
	bar.End()
	fmt.Fprintf(std.Out, "counted by the consumer of the log: %s\n", rate(last.Uploads-first, counted.Sub(began)))
	fmt.Fprintf(std.Out, "stored for upload_funnel: %d days, %s after that\n", last.Days, time.Since(counted).Round(time.Second/10))
	_, err = pool.Exec(ctx, `VACUUM (ANALYZE) upcall.rollup_superseded, upcall.rollup_hourly, upcall.rollup_objects, upcall.rollup_versions,
		upcall.rollup_funnel, upcall.rollup_days`)
	return err
}

func rate(rows int, took time.Duration) string {
	return fmt.Sprintf("%.0f a second, in %s", float64(rows)/took.Seconds(), took.Round(time.Second/10))
}

// withoutTimeout returns a URL for statements that may take long, of a program that may be suspended.
func withoutTimeout(databaseURL string) (string, error) {
	u, err := url.Parse(databaseURL)
	if err != nil || u.Host == "" {
		return "", errors.New("--database-url: give one like postgres://user:password@host:5432/database")
	}
	query := u.Query()
	query.Set("statement_timeout", "0")
	query.Set("idle_in_transaction_session_timeout", "0")
	u.RawQuery = query.Encode()
	return u.String(), nil
}
