package eventstore

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/fault"
	"upcall/migrations"
)

// EnsurePartitions makes the partitions of now's month, of the two after it, and of the one
// before, for receivers whose clocks are a little behind and for events that have waited. Many
// may call it at once, also while events are being recorded.
//
// The role must own upcall.upload_events, as the role that migrated does.
func EnsurePartitions(ctx context.Context, pool *pgxpool.Pool, now time.Time) error {
	first := monthOf(now)
	var months []time.Time
	for offset := -1; offset <= 2; offset++ {
		months = append(months, first.AddDate(0, offset, 0))
	}
	return ensureMonths(ctx, pool, months)
}

// MonthsAhead returns how many months after now's have a partition, without a gap; -1 if
// now's month has none.
func MonthsAhead(ctx context.Context, pool *pgxpool.Pool, now time.Time) (int, error) {
	rows, err := pool.Query(ctx, `
		SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'upcall.upload_events'::regclass`)
	if err != nil {
		return 0, fmt.Errorf("look for partitions: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return 0, fmt.Errorf("look for partitions: %w", err)
	}
	ahead, month := -1, monthOf(now)
	for slices.Contains(names, partitionName(month)) {
		ahead, month = ahead+1, month.AddDate(0, 1, 0)
	}
	return ahead, nil
}

// ensureMonths makes the partitions that the given times fall into.
func ensureMonths(ctx context.Context, pool *pgxpool.Pool, times []time.Time) error {
	var months []time.Time
	for _, t := range times {
		if month := monthOf(t); !slices.ContainsFunc(months, month.Equal) {
			months = append(months, month)
		}
	}
	err := Transact(ctx, pool, func(tx pgx.Tx) error {
		missing, err := missingMonths(ctx, tx, months)
		if err != nil || len(missing) == 0 {
			return err
		}
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", migrations.LockPartitions); err != nil {
			return err
		}
		// Another process may have made them in the meantime.
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
	if migrations.ServerError(err).Code == insufficientPrivilege {
		err = fault.New(ErrMistake, "", "run receiver maintain with the role that owns the tables, now and then every day",
			"%s, and this role may not make what is missing", fault.Line(err.Error()))
	}
	if err != nil {
		return fmt.Errorf("make partitions: %w", err)
	}
	return nil
}

// missingMonths removes the months that have a partition.
func missingMonths(ctx context.Context, tx pgx.Tx, months []time.Time) ([]time.Time, error) {
	rows, _ := tx.Query(ctx, `
		SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = 'upcall.upload_events'::regclass`)
	there, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return slices.DeleteFunc(months, func(month time.Time) bool { return slices.Contains(there, partitionName(month)) }), err
}

// makePartition makes a table and attaches it. Unlike CREATE TABLE … PARTITION OF, this takes
// no lock on the parent that writers have to wait for.
func makePartition(ctx context.Context, tx pgx.Tx, month time.Time) error {
	const bound = "2006-01-02 15:04:05+00"
	_, err := tx.Exec(ctx, fmt.Sprintf(`
		CREATE TABLE IF NOT EXISTS %[1]s (LIKE upcall.upload_events INCLUDING ALL);
		ALTER TABLE upcall.upload_events ATTACH PARTITION %[1]s FOR VALUES FROM ('%[2]s') TO ('%[3]s')`,
		pgx.Identifier{"upcall", partitionName(month)}.Sanitize(), month.Format(bound), month.AddDate(0, 1, 0).Format(bound)))
	return err
}

// monthOf returns the beginning of t's month in UTC.
func monthOf(t time.Time) time.Time {
	t = t.UTC()
	return time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
}

const partitionLayout = "upload_events_2006_01"

func partitionName(month time.Time) string { return month.Format(partitionLayout) }
