package migrations

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// progressEvery is how often the making of an index is reported, and barEvery on a terminal.
	progressEvery = 5 * time.Second
	barEvery      = 200 * time.Millisecond
	// maxIdentifier is how many bytes of a name PostgreSQL keeps (PostgreSQL 18 manual, 4.1.1).
	maxIdentifier = 63

	canceled = "57014" // SQLSTATE
)

// A Report takes what is told of long work: lines, or if there is a bar, how far it is.
type Report struct {
	Line func(line string)
	Bar  func(share float64, text string) // of all of the work, from 0 to 1; nil without a terminal
}

// A partitionedIndex is an index of upcall.upload_events that is made on each partition
// CONCURRENTLY. What is on the table itself came before, ON ONLY the table, so that partitions
// that are new get theirs with the rest.
type partitionedIndex struct {
	name    string // of the index on the table
	suffix  string // of the names of its parts, after the partition's
	columns string // of CREATE INDEX, from the method on
	analyze bool   // it is on an expression, of which PostgreSQL has no statistics yet
}

// part returns the name of the index of a partition.
func (p partitionedIndex) part(table string) string {
	if name := table + p.suffix; len(name) <= maxIdentifier {
		return name
	}
	// A partition that someone attached by hand may have any name.
	return fmt.Sprintf("upload_events_part_%.16x", sha256.Sum256([]byte(table+p.suffix)))
}

// An indexer makes an index on the partitions that were there before it. It runs under the lock
// of migrations, on the session that has it, so that an index that is not valid and not attached
// is left over from a run that was killed.
type indexer struct {
	conn   *pgx.Conn
	index  partitionedIndex
	report Report
}

// run makes what is missing. It blocks neither recording nor reading. Call it again after an
// interruption: it continues with the partition that was under way.
func (x indexer) run(ctx context.Context) error {
	// CREATE INDEX CONCURRENTLY waits for older transactions without blocking anyone, so it
	// may wait for as long as they take.
	if _, err := x.conn.Exec(ctx, "SET statement_timeout = 0; SET lock_timeout = 0"); err != nil {
		return fmt.Errorf("prepare to make indexes: %w", err)
	}
	partitions, err := x.missing(ctx)
	if err != nil {
		return err
	}
	var done, all int64
	for _, p := range partitions {
		all += p.bytes + 1
	}
	for n, p := range partitions {
		began := time.Now()
		w := watcher{x, fmt.Sprintf("%s (%d of %d)", p.table, n+1, len(partitions)), func(share float64) float64 {
			return (float64(done) + share*float64(p.bytes+1)) / float64(all)
		}}
		w.say(fmt.Sprintf("making the index of %s, while it is in use", w.title), 0)
		if err := x.make(ctx, p.table, w); err != nil {
			return fmt.Errorf("make the index of %s: %w", p.table, err)
		}
		done += p.bytes + 1
		w.say(fmt.Sprintf("made the index of %s in %s", p.table, time.Since(began).Round(time.Millisecond)), 0)
	}
	return nil
}

// An unindexed partition has no index that is part of ours.
type unindexed struct {
	table string
	bytes int64
}

// missing returns the partitions without the index, the newest first, because it is the newest
// that is in use.
func (x indexer) missing(ctx context.Context) ([]unindexed, error) {
	// to_jsonb, because PostgreSQL before 14 has no column inhdetachpending.
	rows, _ := x.conn.Query(ctx, `
		SELECT c.relname, pg_relation_size(c.oid)
		FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = 'upcall.upload_events'::regclass AND (to_jsonb(i)->>'inhdetachpending')::boolean IS NOT TRUE
			AND NOT EXISTS (
				SELECT FROM pg_index there JOIN pg_inherits part ON part.inhrelid = there.indexrelid
				WHERE there.indrelid = c.oid AND part.inhparent = to_regclass(format('upcall.%I', $1::text))
			)
		ORDER BY c.relname DESC`, x.index.name)
	partitions, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (p unindexed, err error) {
		return p, row.Scan(&p.table, &p.bytes)
	})
	if err != nil {
		return nil, fmt.Errorf("look for partitions without the index: %w", err)
	}
	return partitions, nil
}

func (x indexer) make(ctx context.Context, table string, w watcher) error {
	there, err := x.drop(ctx, table, true)
	if err != nil {
		return err
	}
	name, of := x.index.part(table), pgx.Identifier{schema, table}.Sanitize()
	if !there {
		stop := w.start(ctx)
		_, err := x.conn.Exec(ctx, fmt.Sprintf("CREATE INDEX CONCURRENTLY %s ON %s %s",
			pgx.Identifier{name}.Sanitize(), of, x.index.columns))
		stop()
		if err != nil {
			return err
		}
	}
	if x.index.analyze {
		if _, err := x.conn.Exec(ctx, "ANALYZE "+of); err != nil {
			return err
		}
	}
	return x.brief(ctx, "ALTER INDEX "+pgx.Identifier{schema, x.index.name}.Sanitize()+
		" ATTACH PARTITION "+pgx.Identifier{schema, name}.Sanitize())
}

// drop drops what an interrupted run left on a partition: an index that is not attached. It can
// keep one that is complete, and says whether it did.
func (x indexer) drop(ctx context.Context, table string, keepValid bool) (there bool, err error) {
	name := pgx.Identifier{schema, x.index.part(table)}.Sanitize()
	var valid bool
	err = x.conn.QueryRow(ctx, `SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1) AND indrelid = to_regclass($2)
		AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = indexrelid)`,
		name, pgx.Identifier{schema, table}.Sanitize()).Scan(&valid)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look for what is left: %w", err)
	case valid && keepValid:
		return true, nil
	}
	if x.report.Bar == nil {
		x.report.Line("dropping what an interrupted run left of it")
	}
	_, err = x.conn.Exec(ctx, "DROP INDEX CONCURRENTLY "+name)
	return false, err
}

// brief runs a statement that others wait for while it waits, perhaps for the lock of one
// partition after the other. So it gives up soon, and tries again.
func (x indexer) brief(ctx context.Context, statement string) error {
	return retryLocks(ctx, func() error {
		err := pgx.BeginFunc(ctx, x.conn, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, fmt.Sprintf("SET LOCAL lock_timeout = '%s'; SET LOCAL statement_timeout = '%[1]s'; %s",
				lockTimeout, statement))
			return err
		})
		if reported := ServerError(err); reported.Code == canceled && ctx.Err() == nil {
			reported.Code = lockNotAvailable // that is all that takes time
		}
		return err
	})
}

// A watcher reports how far PostgreSQL is with the index of one partition.
type watcher struct {
	indexer
	title string
	share func(ofPartition float64) float64
}

// say reports a line, or on a bar its share.
func (w watcher) say(line string, share float64) {
	if w.report.Bar != nil {
		w.report.Bar(w.share(share), w.title)
		return
	}
	w.report.Line(line)
}

// start watches until stop is called.
func (w watcher) start(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); w.run(ctx) }()
	return func() { cancel(); <-done }
}

// run works on a connection of its own until ctx ends.
func (w watcher) run(ctx context.Context) {
	conn, err := pgx.ConnectConfig(ctx, w.conn.Config())
	if err != nil {
		return // it is only the report that is missing
	}
	defer conn.Close(context.WithoutCancel(ctx))
	every := progressEvery
	if w.report.Bar != nil {
		every = barEvery
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		var line string
		var share float64
		// The table is read twice: to build the index, and for the rows that came meanwhile.
		err := conn.QueryRow(ctx, `
			SELECT phase || CASE
				WHEN lockers_total > 0 AND phase LIKE 'waiting%'
					THEN format(': %s of %s transactions have ended', lockers_done, lockers_total)
				WHEN blocks_total > 0 THEN format(': %s %%', 100 * blocks_done / blocks_total)
				ELSE '' END,
				CASE WHEN phase LIKE '%validat%' THEN 0.7 + 0.3 * part WHEN phase LIKE 'building%' THEN 0.7 * part ELSE 0 END::float8
			FROM pg_stat_progress_create_index, LATERAL (SELECT coalesce(blocks_done::float8 / nullif(blocks_total, 0), 0) AS part) AS of
			WHERE pid = $1`, int64(w.conn.PgConn().PID())).Scan(&line, &share)
		if err == nil && ctx.Err() == nil {
			w.say(line, share)
		}
	}
}
