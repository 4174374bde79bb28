package hooks

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/eventstore"
	"upcall/internal/fault"
	"upcall/migrations"
)

// partitionLayout is the name of a month of attempts.
const partitionLayout = "hook_attempts_2006_01"

// SQLSTATEs of what another receiver has just done.
const (
	duplicateTable = "42P07"
	undefinedTable = "42P01"
)

// Keep makes the partitions that attempts need and deletes attempts that are too old, once.
func Keep(ctx context.Context, pool *pgxpool.Pool, now time.Time) error {
	return errors.Join(makePartitions(ctx, pool, now), dropPartitions(ctx, pool, now), deleteAttempts(ctx, pool, now))
}

// makePartitions makes those of now's month, the one before, for receivers whose clocks are
// behind, and the next two.
func makePartitions(ctx context.Context, pool *pgxpool.Pool, now time.Time) error {
	there, err := partitions(ctx, pool)
	if err != nil {
		return err
	}
	for offset := -1; offset <= 2; offset++ {
		month := time.Date(now.UTC().Year(), now.UTC().Month(), 1, 0, 0, 0, 0, time.UTC).AddDate(0, offset, 0)
		if there[month] {
			continue
		}
		_, err := eventstore.Exec(ctx, pool, "", fmt.Sprintf(
			"CREATE TABLE IF NOT EXISTS upcall.%s PARTITION OF upcall.hook_attempts FOR VALUES FROM ('%s') TO ('%s')",
			month.Format(partitionLayout), month.Format(time.RFC3339), month.AddDate(0, 1, 0).Format(time.RFC3339)), nil)
		if err != nil && migrations.ServerError(err).Code != duplicateTable && !isUnique(err) {
			return fmt.Errorf("make partitions of attempts: %w", explainRights(err))
		}
	}
	return nil
}

// explainRights makes a missing right a mistake that says what to do.
func explainRights(err error) error {
	if eventstore.Mistake(err) != nil {
		return fault.New(eventstore.ErrMistake, "", "run receiver maintain with the role that owns the tables, now and then every day",
			"%s, and this role may not make or drop months", fault.Line(err.Error()))
	}
	return unavailable(err)
}

// partitions returns the months that there are.
func partitions(ctx context.Context, pool *pgxpool.Pool) (map[time.Time]bool, error) {
	var names []string
	_, err := eventstore.Exec(ctx, pool, "", `
		SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = 'upcall.hook_attempts'::regclass`, func(rows pgx.Rows) (err error) {
		names, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look for partitions of attempts: %w", unavailable(err))
	}
	months := make(map[time.Time]bool)
	for _, name := range names {
		if month, err := time.Parse(partitionLayout, name); err == nil {
			months[month] = true
		}
	}
	return months, nil
}

// dropPartitions drops the months that are too old as a whole.
func dropPartitions(ctx context.Context, pool *pgxpool.Pool, now time.Time) error {
	there, err := partitions(ctx, pool)
	if err != nil {
		return err
	}
	for month := range there {
		if !month.AddDate(0, 1, 0).Before(now.Add(-keepAttempts)) {
			continue
		}
		_, err := eventstore.Exec(ctx, pool, "", "DROP TABLE IF EXISTS upcall."+month.Format(partitionLayout), nil)
		if err != nil && migrations.ServerError(err).Code != undefinedTable {
			return fmt.Errorf("drop partitions of attempts: %w", explainRights(err))
		}
	}
	return nil
}

// deleteAttempts deletes what is too old in the month that is not.
func deleteAttempts(ctx context.Context, pool *pgxpool.Pool, now time.Time) error {
	for {
		tag, err := eventstore.Exec(ctx, pool, "", `
			DELETE FROM upcall.hook_attempts WHERE at < $1 AND (tableoid, ctid) IN (
				SELECT tableoid, ctid FROM upcall.hook_attempts WHERE at < $1 LIMIT $2)`, nil, now.Add(-keepAttempts), stepRows)
		if err != nil {
			return fmt.Errorf("delete old attempts: %w", unavailable(err))
		}
		if tag.RowsAffected() < stepRows {
			return nil
		}
	}
}
