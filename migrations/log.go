package migrations

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// logIndex orders the log. It is on upcall.upload_events since version logSince.
	logIndex = "upload_events_log"
	logSince = 8
	// progressEvery is how often the making of an index is reported.
	progressEvery = 5 * time.Second
)

// An indexer makes the log's index on the partitions that were there before it. It runs under
// the lock of migrations, on the session that has it, so that an index that is not valid
// and not attached is left over from a run that was killed.
type indexer struct {
	conn   *pgx.Conn
	report func(line string)
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
	for n, p := range partitions {
		began := time.Now()
		x.report(fmt.Sprintf("making the index of %s (%d of %d), while it is in use", p.table, n+1, len(partitions)))
		if err := x.make(ctx, p); err != nil {
			return fmt.Errorf("make the index of %s: %w", p.table, err)
		}
		x.report(fmt.Sprintf("made the index of %s in %s", p.table, time.Since(began).Round(time.Millisecond)))
	}
	return nil
}

// An unindexed partition has no index that is part of the log's.
type unindexed struct {
	table string
	left  string // the state of an index with the name that ours will have: "", "valid" or "invalid"
}

func (p unindexed) index() string { return p.table + "_log" }

// missing returns the partitions without the index, the newest first, because it is the newest
// that is in use.
func (x indexer) missing(ctx context.Context) ([]unindexed, error) {
	// to_jsonb, because PostgreSQL before 14 has no column inhdetachpending.
	rows, err := x.conn.Query(ctx, `
		SELECT c.relname, CASE WHEN left_over.indisvalid THEN 'valid' WHEN NOT left_over.indisvalid THEN 'invalid' ELSE '' END
		FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		LEFT JOIN pg_index left_over ON left_over.indrelid = c.oid
			AND left_over.indexrelid = to_regclass(format('upcall.%I', c.relname || '_log'))
		WHERE i.inhparent = 'upcall.upload_events'::regclass AND (to_jsonb(i)->>'inhdetachpending')::boolean IS NOT TRUE
			AND NOT EXISTS (
				SELECT FROM pg_index there JOIN pg_inherits part ON part.inhrelid = there.indexrelid
				WHERE there.indrelid = c.oid AND part.inhparent = 'upcall.`+logIndex+`'::regclass
			)
		ORDER BY c.relname DESC`)
	if err != nil {
		return nil, fmt.Errorf("look for partitions without the log's index: %w", err)
	}
	partitions, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (p unindexed, err error) {
		return p, row.Scan(&p.table, &p.left)
	})
	if err != nil {
		return nil, fmt.Errorf("look for partitions without the log's index: %w", err)
	}
	return partitions, nil
}

func (x indexer) make(ctx context.Context, p unindexed) error {
	index, table := pgx.Identifier{schema, p.index()}.Sanitize(), pgx.Identifier{schema, p.table}.Sanitize()
	if p.left == "invalid" {
		x.report("dropping what an interrupted run left of it")
		if _, err := x.conn.Exec(ctx, "DROP INDEX CONCURRENTLY "+index); err != nil {
			return err
		}
		p.left = ""
	}
	if p.left == "" {
		watching, stop := context.WithCancel(ctx)
		defer stop()
		go x.watch(watching, x.conn.PgConn().PID())
		_, err := x.conn.Exec(ctx, fmt.Sprintf("CREATE INDEX CONCURRENTLY %s ON %s (recorded_xid, id) "+
			"WITH (deduplicate_items = off) WHERE recorded_xid IS NOT NULL", pgx.Identifier{p.index()}.Sanitize(), table))
		if err != nil {
			return err
		}
	}
	return retryLocks(ctx, func() error {
		return pgx.BeginFunc(ctx, x.conn, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '"+lockTimeout+"'; ALTER INDEX upcall."+logIndex+" ATTACH PARTITION "+index)
			return err
		})
	})
}

// watch reports how far PostgreSQL is, on a connection of its own.
func (x indexer) watch(ctx context.Context, pid uint32) {
	conn, err := pgx.ConnectConfig(ctx, x.conn.Config())
	if err != nil {
		return // it is only the report that is missing
	}
	defer conn.Close(context.WithoutCancel(ctx))
	ticker := time.NewTicker(progressEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		var line string
		err := conn.QueryRow(ctx, `
			SELECT phase || CASE
				WHEN lockers_total > 0 AND phase LIKE 'waiting%'
					THEN format(': %s of %s transactions have ended', lockers_done, lockers_total)
				WHEN blocks_total > 0 THEN format(': %s %%', 100 * blocks_done / blocks_total)
				ELSE '' END
			FROM pg_stat_progress_create_index WHERE pid = $1`, int64(pid)).Scan(&line)
		if err == nil {
			x.report(line)
		}
	}
}
