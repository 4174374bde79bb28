package rollup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"upcall/internal/eventstore"
	"upcall/internal/feed"
)

// dayTimes say when days are computed.
type dayTimes struct {
	settle time.Duration // after its end, before a day is stored: until late rows of the ledger are there
	again  time.Duration // before a day that has changed is stored again
	look   time.Duration // from one look for days to the next
	revoke time.Duration // how long a revocation may take to be committed
}

var defaultDayTimes = dayTimes{settle: time.Hour, again: 30 * time.Second, look: 2 * time.Second, revoke: time.Minute}

// firstDay is the first day of which retention has dropped nothing. What is stored of those before
// it stays as it is.
const firstDay = "coalesce((SELECT (dropped_before AT TIME ZONE 'UTC')::date FROM upcall.feed_log), '-infinity')"

// overDays has the days that are over at the time $1, from the first that there is; none while there is none.
const overDays = `
	SELECT first + number AS day FROM (
		SELECT greatest(` + firstDay + `, (oldest AT TIME ZONE 'UTC')::date) AS first FROM (
			SELECT least((SELECT min(issued_at) FROM upcall.issued_uploads), (SELECT min(received_at) FROM upcall.upload_events)) AS oldest
		) AS rows WHERE oldest IS NOT NULL
	) AS days CROSS JOIN LATERAL generate_series(0, ($1::timestamptz AT TIME ZONE 'UTC')::date - 1 - first) AS number`

// A dayLook is when a stint looked for days that are over, and for revocations.
type dayLook struct {
	last time.Time
}

// lookAtDays adds the days that are over, and marks those whose uploads were revoked. It is done
// between batches, so that each batch finds all days that it changes.
func (s *stint) lookAtDays(ctx context.Context) error {
	if time.Since(s.days.last) < s.dayTimes.look {
		return nil
	}
	// At first, also those revocations that came while no receiver worked here.
	since := pgtype.Interval{Valid: !s.days.last.IsZero(), Microseconds: (s.dayTimes.revoke + 10*time.Minute).Microseconds()}
	var over, revoked []time.Time
	_, err := eventstore.Exec(ctx, s.config.Pool, "", `
		SELECT ARRAY(
			SELECT day FROM (`+overDays+`) AS over
			WHERE NOT EXISTS (SELECT FROM upcall.rollup_days there WHERE there.day = over.day)
		), ARRAY(
			SELECT DISTINCT d.day
			FROM upcall.revoked_uploads r JOIN upcall.issued_uploads u USING (upload_id)
			JOIN upcall.rollup_days d ON d.day = (u.issued_at AT TIME ZONE 'UTC')::date
			WHERE d.stored AND d.day >= `+firstDay+` AND r.revoked_at > d.computed_at - $3::interval
				AND r.revoked_at > coalesce(now() - $2::interval, (SELECT min(computed_at) - $3::interval FROM upcall.rollup_days))
		)`, func(rows pgx.Rows) error {
		for rows.Next() {
			if err := rows.Scan(&over, &revoked); err != nil {
				return err
			}
		}
		return rows.Err()
	}, s.config.Now().Add(-s.dayTimes.settle), since, s.dayTimes.revoke)
	if err != nil {
		return fmt.Errorf("look for days: %w", err)
	}
	s.days.last = time.Now()
	if s.behind.Load() {
		over = nil // they would change with each batch
	}
	if len(over)+len(revoked) == 0 {
		return nil
	}
	return s.lease.Commit(ctx, s.lease.Cursor(), func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO upcall.rollup_days (day) SELECT unnest($1::date[])
			ON CONFLICT DO NOTHING`, over); err != nil {
			return fmt.Errorf("add days: %w", err)
		}
		_, err := tx.Exec(ctx, "UPDATE upcall.rollup_days SET version = version + 1, stored = false WHERE day = ANY ($1::date[])", revoked)
		if err != nil {
			return fmt.Errorf("mark days of revoked uploads: %w", err)
		}
		return nil
	})
}

// keepDays stores days until ctx ends. It works half of the time at most.
func (w *Worker) keepDays(ctx context.Context) {
	for ctx.Err() == nil {
		began := time.Now()
		more, err := w.keepDay(ctx)
		if err != nil && !errors.Is(err, errDay) {
			w.warn(ctx, "days", err)
			more = false
		}
		if pause := time.Since(began); more {
			sleep(ctx, pause)
		} else {
			sleep(ctx, max(pause, w.dayTimes.look))
		}
	}
}

// errDay says that a day has changed while it was computed.
var errDay = errors.New("the day has changed")

// A bucketDay is a row of rollup_funnel, and what rollup_overwritten had when it was computed.
type bucketDay struct {
	bucket                                      string
	issued, uploaded, unused, revoked           int64
	overwritten, unissued, overwrittenElsewhere int64
	median, p95                                 pgtype.Interval
	unusedUntil                                 []time.Time
}

// keepDay computes a day in one snapshot, and stores it if nothing has changed since. It reports
// whether there may be another.
func (w *Worker) keepDay(ctx context.Context) (more bool, err error) {
	if w.behind.Load() {
		return false, nil
	}
	var day, computed time.Time
	var version int64
	var buckets []bucketDay
	read := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err = pgx.BeginTxFunc(ctx, w.config.Pool, read, func(tx pgx.Tx) error {
		// Other settings than those of readers of the log.
		_, err := tx.Exec(ctx, `SET LOCAL statement_timeout = '10min'; SET LOCAL enable_seqscan = on; SET LOCAL enable_bitmapscan = on;
			SET LOCAL enable_sort = on; SET LOCAL plan_cache_mode = auto`)
		if err != nil {
			return err
		}
		err = tx.QueryRow(ctx, `SELECT day, version, now() FROM upcall.rollup_days
			WHERE (NOT stored AND (computed_at IS NULL OR computed_at < now() - $1::interval) OR recheck) AND day >= `+firstDay+`
			ORDER BY stored, day DESC LIMIT 1`, w.dayTimes.again).Scan(&day, &version, &computed)
		if err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `SELECT coalesce(f.bucket, ''), f.issued, f.uploaded, f.unused, f.revoked, f.overwritten, f.unissued,
			coalesce((SELECT o.uploads FROM upcall.rollup_overwritten o WHERE o.day = $1 AND o.bucket = f.bucket), 0),
			f.median, f.p95, f.unused_until FROM upcall.funnel_of($1) AS f`, day)
		if err != nil {
			return err
		}
		buckets, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (b bucketDay, err error) {
			return b, row.Scan(&b.bucket, &b.issued, &b.uploaded, &b.unused, &b.revoked, &b.overwritten, &b.unissued,
				&b.overwrittenElsewhere, &b.median, &b.p95, &b.unusedUntil)
		})
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("compute a day: %w", err)
	}
	err = eventstore.Transact(ctx, w.config.Pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `UPDATE upcall.rollup_days SET version = version + 1, stored = true, recheck = false, computed_at = $3
			WHERE day = $1 AND version = $2 AND day >= `+firstDay, day, version, computed)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return errDay
		}
		var batch pgx.Batch
		batch.Queue("DELETE FROM upcall.rollup_funnel WHERE day = $1", day)
		for _, b := range buckets {
			batch.Queue(`INSERT INTO upcall.rollup_funnel
				(day, bucket, issued, uploaded, unused, revoked, overwritten, unissued, median, p95, unused_until)
				VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, coalesce($11::timestamptz[], '{}'))`,
				day, b.bucket, b.issued, b.uploaded, b.unused, b.revoked, b.overwritten-b.overwrittenElsewhere, b.unissued,
				b.median, b.p95, b.unusedUntil)
		}
		return tx.SendBatch(ctx, &batch).Close()
	})
	if err != nil {
		return true, fmt.Errorf("store a day: %w", err)
	}
	return true, nil
}

// Days returns how many days are over, and of how many of them what became of their uploads is stored.
func (w *Worker) Days(ctx context.Context) (stored, over int, err error) {
	_, err = eventstore.Exec(ctx, w.config.Pool, "", `
		SELECT count(*) FILTER (WHERE stored), count(*) FROM (`+overDays+`) AS over LEFT JOIN upcall.rollup_days USING (day)`,
		func(rows pgx.Rows) error {
			for rows.Next() {
				if err := rows.Scan(&stored, &over); err != nil {
					return err
				}
			}
			return rows.Err()
		}, w.config.Now().Add(-w.dayTimes.settle))
	if err != nil {
		return 0, 0, fmt.Errorf("count days: %w", err)
	}
	return stored, over, nil
}

// daysLeft returns how many days are not stored yet, or are to be stored again.
func (w *Worker) daysLeft(ctx context.Context, which string) (n int, err error) {
	_, err = eventstore.Exec(ctx, w.config.Pool, "", "SELECT count(*) FROM upcall.rollup_days WHERE "+which+" AND day >= "+firstDay,
		func(rows pgx.Rows) (err error) {
			n, err = pgx.CollectExactlyOneRow(rows, pgx.RowTo[int])
			return err
		})
	if err != nil {
		return 0, fmt.Errorf("count days: %w", err)
	}
	return n, nil
}

// markSQL marks the days whose numbers change: those on which the uploads were issued, and those on which
// events were received that belong to none. It looks at what was received, $1 to $4 in the given order,
// or at uploads and times of events, $5 and $6. What has just been issued and received is passed over:
// its day is not there yet. UUIDs of version 7 begin with the time.
//
// A plan for any place in the log expects many events, and would read the whole ledger to join them. So
// each looks for its row (OFFSET 0 keeps it so).
func markSQL(order string) string {
	return `
	UPDATE upcall.rollup_days d SET version = d.version + 1, stored = false
	FROM (
		SELECT DISTINCT (coalesce(i.issued_at, e.received_at) AT TIME ZONE 'UTC')::date AS day
		FROM (
			SELECT upload_id, received_at FROM upcall.upload_events WHERE ` + order + `
			UNION ALL
			SELECT upload_id, received_at FROM unnest($5::uuid[], $6::timestamptz[]) AS lost (upload_id, received_at)
		) AS e
		LEFT JOIN LATERAL (
			SELECT u.issued_at FROM upcall.issued_uploads u WHERE u.upload_id = e.upload_id OFFSET 0
		) AS i ON true
		WHERE ` + mayTouch + `
	) AS touched
	WHERE d.day = touched.day AND d.day >= ` + firstDay
}

// mayTouch is whether an event e may be of one of the days.
const mayTouch = `(e.received_at >= (SELECT ` + afterDays + `)
			AND (e.upload_id IS NULL OR get_byte(uuid_send(e.upload_id), 6) >> 4 = 7 AND e.upload_id >= (SELECT
				(lpad(to_hex((extract(epoch FROM ` + afterDays + `) * 1000)::bigint), 12, '0') || '00000000000000000000')::uuid)
			)) IS NOT TRUE`

// afterDays is when the last of the days has been over for so long that no clock is so wrong.
const afterDays = "(coalesce((SELECT max(day) FROM upcall.rollup_days), '1970-01-01') + 1)::timestamp" +
	" AT TIME ZONE 'UTC' + interval '1 hour'"

var (
	markByXID = markSQL(`recorded_xid IS NOT NULL AND (recorded_xid, id) >= ($1::xid8, $2::uuid)
				AND (recorded_xid, id) <= ($3::xid8, $4::uuid)`)
	markByTime = markSQL(`recorded_xid IS NULL AND (received_at, id) >= ($1::timestamptz, $2::uuid)
				AND (received_at, id) <= ($3::timestamptz, $4::uuid)`)
)

// markDays marks the days that the batch changes. Most change none.
func (b *batch) markDays(ctx context.Context, tx pgx.Tx, entries []feed.Entry) error {
	if len(entries) == 0 || b.stage != current {
		return nil
	}
	if b.lost == nil {
		b.lost = columns{[]uuid.NullUUID{}, []time.Time{}}
	}
	xid, at, id := entries[0].Cursor.Place()
	lastXID, lastAt, lastID := entries[len(entries)-1].Cursor.Place()
	name, sql, args := "upcall_rollup_mark", markByXID, []any{xid, id, lastXID, lastID}
	if xid == 0 {
		name, sql, args = "upcall_rollup_mark_nulls", markByTime, []any{at, id, lastAt, lastID}
	}
	_, err := exec(ctx, tx, name, sql, append(args, b.lost...)...)
	return err
}

// countOverwritten counts the uploads that were the current ones of their objects and are not any more.
// They may be of any day, so the days are not marked. One that was used again counts as overwritten
// already.
func (b *batch) countOverwritten(ctx context.Context, tx pgx.Tx) error {
	var changed columns
	for _, o := range b.objects {
		if _, latest := o.changed(); !latest || o.number == 0 || b.stage != current {
			continue
		}
		if was := o.before[len(o.before)-1]; has(o.known, was) {
			changed.add(o.bucket, o.key, was.at, was.id, int64(+1))
		}
		if is := o.latest(); has(o.before, is) {
			changed.add(o.bucket, o.key, is.at, is.id, int64(-1))
		}
	}
	if changed == nil {
		return nil
	}
	_, err := exec(ctx, tx, "upcall_rollup_overwritten", `
		INSERT INTO upcall.rollup_overwritten AS o (day, bucket, uploads)
		SELECT (i.issued_at AT TIME ZONE 'UTC')::date, i.bucket, sum(u.number)::bigint
		FROM unnest($2::text[], $3::text[], $4::timestamptz[], $5::uuid[], $6::bigint[])
			AS u (bucket, object_key, received_at, event_id, number)
		JOIN upcall.upload_events e ON e.received_at = u.received_at AND e.id = u.event_id
		JOIN upcall.issued_uploads i ON i.upload_id = e.upload_id AND i.bucket = u.bucket AND i.object_key = u.object_key
		WHERE (
			SELECT count(*) FROM upcall.callback_ids c WHERE c.upload_id = e.upload_id AND NOT EXISTS (
				SELECT FROM upcall.rollup_superseded s WHERE s.generation = $1 AND s.received_at = c.received_at AND s.event_id = c.id
			)
		) = 1
		GROUP BY 1, 2
		ON CONFLICT (day, bucket) DO UPDATE SET uploads = o.uploads + excluded.uploads`, changed.after(b.generation)...)
	return err
}

// has reports whether an upload is among others.
func has(among []upload, u upload) bool {
	return slices.ContainsFunc(among, func(a upload) bool { return a.compare(u) == 0 })
}
