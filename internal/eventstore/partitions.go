package eventstore

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/migrations"
)

// EnsurePartitions makes the partitions of the month before now, of now's month, and of
// the two after. Many may call it at once, and while events are being recorded.
//
// The role must own upcall.upload_events, as the one that migrated does.
//
// The month before is for receivers whose clocks are a little behind, and for events
// that have waited.
func EnsurePartitions(ctx context.Context, pool *pgxpool.Pool, now time.Time) error {
	first := monthOf(now)
	var months []time.Time
	for offset := -1; offset <= 2; offset++ {
		months = append(months, first.AddDate(0, offset, 0))
	}
	return ensureMonths(ctx, pool, months)
}

// ensureMonths makes the partitions that the given times fall into.
func ensureMonths(ctx context.Context, pool *pgxpool.Pool, times []time.Time) error {
	var months []time.Time
	for _, t := range times {
		if month := monthOf(t); !slices.ContainsFunc(months, month.Equal) {
			months = append(months, month)
		}
	}
	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		missing, err := missingMonths(ctx, tx, months)
		if err != nil || len(missing) == 0 {
			return err
		}
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", migrations.LockPartitions); err != nil {
			return err
		}
		// Someone else may have made them while we waited.
		if missing, err = missingMonths(ctx, tx, missing); err != nil {
			return err
		}
		for _, month := range missing {
			if err := makePartition(ctx, tx, month); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("make partitions: %w", err)
	}
	return nil
}

// missingMonths returns those that have no partition.
func missingMonths(ctx context.Context, tx pgx.Tx, months []time.Time) ([]time.Time, error) {
	names := make([]string, len(months))
	for i, month := range months {
		names[i] = partitionName(month)
	}
	rows, err := tx.Query(ctx, `
		SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = 'upcall.upload_events'::regclass AND c.relname = ANY ($1)`, names)
	if err != nil {
		return nil, err
	}
	there, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	var missing []time.Time
	for i, month := range months {
		if !slices.Contains(there, names[i]) {
			missing = append(missing, month)
		}
	}
	return missing, nil
}

// makePartition makes a table and attaches it. That takes no lock on the parent that
// writers have to wait for; CREATE TABLE … PARTITION OF would take one.
func makePartition(ctx context.Context, tx pgx.Tx, month time.Time) error {
	name := pgx.Identifier{"upcall", partitionName(month)}.Sanitize()
	next := month.AddDate(0, 1, 0)
	const bound = "2006-01-02 15:04:05+00"
	for _, statement := range []string{
		"CREATE TABLE IF NOT EXISTS " + name + " (LIKE upcall.upload_events INCLUDING ALL)",
		fmt.Sprintf("ALTER TABLE upcall.upload_events ATTACH PARTITION %s FOR VALUES FROM ('%s') TO ('%s')",
			name, month.Format(bound), next.Format(bound)),
	} {
		if _, err := tx.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// monthOf returns the beginning of t's month in UTC.
func monthOf(t time.Time) time.Time {
	t = t.UTC()
	return time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
}

func partitionName(month time.Time) string { return month.Format("upload_events_2006_01") }
