package feed

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/eventstore"
)

// repairStep is how many events are looked at in one transaction, which holds up readers of the
// whole cluster for about 20 ms.
const repairStep = 1000

// A repair clears the recorded_xid of events that were restored from another cluster, the
// newest first, and notes in feed_moved where that cluster's cursors continue.
type repair struct {
	pool   *pgxpool.Pool
	origin uint64   // the cluster that the events come from; 0 if no one has read them there
	first  position // of the events that were cleared so far: what comes first now
}

// Repair puts events that were restored from another cluster before all that this one records, so
// that the log can be read again. It returns how many there were: none if [ErrRestored] does
// not hold. It works in small steps beside the recorder, calls progress with the number of
// events looked at, and continues where an earlier run stopped.
//
// The pool is from eventstore.OpenFeed, of the role that owns the tables.
func Repair(ctx context.Context, pool *pgxpool.Pool, progress func(seen int)) (cleared int, err error) {
	r := repair{pool: pool}
	if found, err := r.begin(ctx); err != nil || !found {
		return 0, err
	}
	next := position{xid: 1<<63 - 1, id: uuid.Max}
	for seen := 0; ; {
		began := time.Now()
		n, gone, err := r.step(ctx, &next)
		if err != nil {
			return cleared, fmt.Errorf("repair the log: %w", eventstore.Unavailable(err))
		}
		cleared += gone
		seen += n
		progress(seen)
		if n < repairStep {
			break
		}
		sleep(ctx, time.Since(began)) // half of the time is the recorder's
	}
	if err := r.findings(ctx); err != nil {
		return cleared, fmt.Errorf("repair the log: %w", eventstore.Unavailable(err))
	}
	err = eventstore.Transact(ctx, pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "UPDATE upcall.feed_log SET repairing = NULL")
		return err
	})
	if err != nil {
		return cleared, fmt.Errorf("repair the log: %w", eventstore.Unavailable(err))
	}
	return cleared, nil
}

// findings puts those that were restored at the end of the log: there are few, so that they may be told
// again.
func (r *repair) findings(ctx context.Context) error {
	const move = `
		WITH step AS MATERIALIZED (
			SELECT recorded_xid, id FROM upcall.findings WHERE (recorded_xid, id) < ($1::xid8, $2::uuid)
			ORDER BY recorded_xid DESC, id DESC LIMIT $3
		), moved AS (
			UPDATE upcall.findings f SET recorded_xid = pg_current_xact_id() FROM step
			WHERE f.id = step.id AND f.recorded_xid::text::bigint & 4294967295 <> f.xmin::text::bigint
		)
		SELECT recorded_xid, id FROM step ORDER BY recorded_xid DESC, id DESC`
	next := position{xid: 1<<63 - 1, id: uuid.Max}
	for more := true; more; {
		began := time.Now()
		err := eventstore.Transact(ctx, r.pool, func(tx pgx.Tx) error {
			rows, err := tx.Query(ctx, move, next.xid, next.id, repairStep)
			if err != nil {
				return err
			}
			tag, err := pgx.ForEachRow(rows, []any{&next.xid, &next.id}, func() error { return nil })
			more = tag.RowsAffected() == repairStep
			return err
		})
		if err != nil {
			return err
		}
		sleep(ctx, time.Since(began))
	}
	return nil
}

// begin reports whether there is something to repair, and keeps readers out until the end.
func (r *repair) begin(ctx context.Context) (found bool, err error) {
	l := &Log{config: Config{Pool: r.pool}}
	var repairing bool
	if err := l.queryRow(ctx, "SELECT repairing IS NOT NULL FROM upcall.feed_log", []any{&repairing}); err != nil {
		return false, err
	}
	h, _, err := l.lookAround(ctx)
	restored := errors.Is(err, ErrRestored)
	if err != nil && !restored || !restored && !repairing {
		return false, err
	}
	if err := eventstore.Transact(ctx, r.pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "UPDATE upcall.feed_log SET repairing = coalesce(repairing, now())")
		return err
	}); err != nil {
		return false, fmt.Errorf("begin to repair the log: %w", eventstore.Unavailable(err))
	}
	for _, e := range h.eras {
		if e.system != h.system {
			r.origin = e.system
		}
	}
	// An earlier run may have come so far.
	const lowest = "SELECT received_at, id FROM upcall.feed_moved WHERE system_identifier = $1 ORDER BY recorded_xid LIMIT 1"
	return true, l.queryRow(ctx, lowest, []any{microseconds{&r.first.at}, &r.first.id}, int64(r.origin))
}

// step looks at the events before next, from the end of the log to its beginning, and clears
// those that were not numbered by the transaction that wrote their row.
func (r *repair) step(ctx context.Context, next *position) (seen, cleared int, err error) {
	const clear = `
		WITH step AS MATERIALIZED (
			SELECT recorded_xid, received_at, id FROM upcall.upload_events
			WHERE recorded_xid IS NOT NULL AND (recorded_xid, id) < ($1::xid8, $2::uuid)
			ORDER BY recorded_xid DESC, id DESC LIMIT $3
		), cleared AS (
			UPDATE upcall.upload_events e SET recorded_xid = NULL FROM step
			WHERE e.received_at = step.received_at AND e.id = step.id AND e.recorded_xid IS NOT NULL
				AND e.recorded_xid::text::bigint & 4294967295 <> e.xmin::text::bigint
			RETURNING step.recorded_xid, e.received_at, e.id
		)
		SELECT step.recorded_xid, step.id, cleared.received_at FROM step LEFT JOIN cleared USING (recorded_xid, id)
		ORDER BY step.recorded_xid DESC, step.id DESC`
	err = eventstore.Transact(ctx, r.pool, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, clear, next.xid, next.id, repairStep)
		if err != nil {
			return err
		}
		first, lowest, last := r.first, uint64(0), pgtype.Timestamptz{}
		var at pgtype.Timestamptz
		seen, cleared = 0, 0
		_, err = pgx.ForEachRow(rows, []any{&next.xid, &next.id, &at}, func() error {
			seen++
			if !at.Valid {
				return nil
			}
			cleared++
			lowest = next.xid
			if p := (position{at: at.Time.UnixMicro(), id: next.id}); first == (position{}) || p.compare(first) < 0 {
				first = p
			}
			if !last.Valid || at.Time.After(last.Time) {
				last = at
			}
			return nil
		})
		if err != nil || cleared == 0 {
			return err
		}
		r.first = first
		_, err = tx.Exec(ctx, "UPDATE upcall.feed_log SET null_until = greatest(null_until, $1)", last)
		if err != nil || r.origin == 0 {
			return err
		}
		_, err = tx.Exec(ctx, `INSERT INTO upcall.feed_moved (system_identifier, recorded_xid, received_at, id)
			VALUES ($1, $2::xid8, $3, $4) ON CONFLICT (system_identifier, recorded_xid)
			DO UPDATE SET received_at = excluded.received_at, id = excluded.id`,
			int64(r.origin), lowest, time.UnixMicro(first.at), first.id)
		return err
	})
	return seen, cleared, err
}
