package eventstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/event"
	"upcall/migrations"
)

// A Recovery is what became of an event that no callback told of.
type Recovery string

const (
	Recovered       Recovery = "recorded" // now
	AlreadyKnown    Recovery = "known"    // an event tells of the same upload
	RecoveryRevoked Recovery = "revoked"  // the upload was revoked
	RecoveryTooOld  Recovery = "too_old"  // retention has dropped what was received then
)

// Recover records events of other sources than callbacks, at most about 1,000, in one short transaction, and
// returns which of them are recorded now. Not recorded are: an event whose upload another event tells of, by
// its upload, object and ETag or by its request id; one whose upload was revoked; and one that was received before what
// retention has dropped. Callers leave out what retention is about to drop, see [KeptSince].
//
// A listing does not say of which upload an object is, if several were issued for its key. So what it told is also
// known by object, ETag and about the time, except to a notification that has another upload: that one is right.
//
// What is recorded is also in upcall.recovered_uploads, for the callback that may come after all.
//
// No callback can slip in between: what is written comes after all transactions that may have recorded one in
// the order of the log. If it must wait for such a transaction, it tries again for half a minute, longer each time.
//
// While the roll-ups are far behind, it records nothing: what they have not read is looked through each time.
//
// The pool is from [Open]. The error wraps [event.ErrUnavailable], or [event.ErrDeadLetter] if PostgreSQL does
// not accept one of the events, or [event.ErrUnstorable].
func Recover(ctx context.Context, pool *pgxpool.Pool, events []*event.Event) (recorded []bool, err error) {
	recorded = make([]bool, len(events))
	err = RecoverWith(ctx, pool, events, func(_ pgx.Tx, became []Recovery) error {
		for i, b := range became {
			recorded[i] = b == Recovered
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return recorded, nil
}

// RecoverWith does what [Recover] does, and calls also in the same transaction with what becomes of each
// event. It may do so several times, but only one transaction is committed.
func RecoverWith(ctx context.Context, pool *pgxpool.Pool, events []*event.Event, also func(pgx.Tx, []Recovery) error) error {
	return recoverFor(ctx, pool, events, heldFor, also)
}

// recoverFor is RecoverWith, with how long it is tried until the caller is told.
func recoverFor(
	ctx context.Context, pool *pgxpool.Pool, events []*event.Event, most time.Duration, also func(pgx.Tx, []Recovery) error,
) error {
	rows := make([]*request[recoveredRow], len(events))
	times := make([]time.Time, len(events))
	for i, e := range events {
		row, err := newRecoveredRow(e)
		if err != nil {
			return fmt.Errorf("recover event: %w", err)
		}
		rows[i], times[i] = &request[recoveredRow]{id: e.ID, row: row}, e.ReceivedAt
	}
	began := time.Now()
	for wait, quiet := quietPause, quietFor; ; wait, quiet = min(2*wait, quietPauseMax), min(2*quiet, quietForMax) {
		err := tryRecover(ctx, pool, rows, times, quiet, also)
		if err == nil {
			return nil
		}
		switch {
		case isRefusal(err) && migrations.ServerError(err).Code != checkViolation || hasConstraint(err):
			return fmt.Errorf("recover events: %w: %w", event.ErrDeadLetter, err)
		case !errors.Is(err, errHeld) || time.Since(began) > most:
			return fmt.Errorf("recover events: %w", unavailable(err))
		}
		if stopped := pause(ctx, wait); stopped != nil {
			return fmt.Errorf("recover events: %w", unavailable(err))
		}
	}
}

const (
	// quietFor is how long a transaction waits for those that began to write before it, and quietLook how often it
	// looks; then it makes room, because it holds back the log itself. Where commits are slow, it waits longer
	// the next time.
	quietFor, quietForMax, quietLook = 50 * time.Millisecond, 400 * time.Millisecond, 2 * time.Millisecond
	quietPause, quietPauseMax        = 20 * time.Millisecond, time.Second
	// heldFor is for how long it is tried until the caller is told.
	heldFor = 30 * time.Second
)

// hasConstraint reports whether a constraint has failed, and not for want of a partition.
func hasConstraint(err error) bool { return migrations.ServerError(err).ConstraintName != "" }

var (
	errHeld   = errors.New("another transaction has been writing for long")
	errUnread = fmt.Errorf("the roll-ups have %d events or more of the log to read, and are waited for", mostUnread)
)

// mostUnread is how much of the log, where there is no index on what is looked for, may have to be looked through.
const mostUnread = 100_000

// indexesOnly keeps the planner from reading tables from their beginning.
const indexesOnly = "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL jit = off"

// tryRecover first looks up what is known with a statement that only reads, because there may be a lot to look
// at. Then it takes its place in the log, and looks only at what came in the meantime.
func tryRecover(
	ctx context.Context, pool *pgxpool.Pool, rows []*request[recoveredRow], times []time.Time, quiet time.Duration,
	also func(pgx.Tx, []Recovery) error,
) error {
	became, since, err := lookUp(ctx, pool, rows)
	if err != nil {
		return err
	}
	var rest []*request[recoveredRow]
	for i, q := range rows {
		if became[i] == "" && slices.ContainsFunc(rest, func(other *request[recoveredRow]) bool { return q.row.same(&other.row) }) {
			became[i] = AlreadyKnown
		}
		if became[i] == "" {
			rest = append(rest, q)
		}
	}
	if len(rest) > 0 {
		if err := ensureMonths(ctx, pool, times); err != nil {
			return err
		}
	}
	slices.SortFunc(rest, func(a, b *request[recoveredRow]) int { return slices.Compare(a.id[:], b.id[:]) })
	for _, q := range rest {
		q.row.since = &since
	}
	return Transact(ctx, pool, func(tx pgx.Tx) error {
		if len(rest) > 0 {
			verdicts, err := writeRecovered(ctx, tx, rest, quiet)
			if err != nil {
				return err
			}
			for i, q := range rows {
				if became[i] != "" {
					continue
				}
				became[i] = AlreadyKnown
				if n, found := slices.BinarySearchFunc(verdicts, q.id, compareResult); found {
					became[i] = verdictOf[verdicts[n].outcome]
				}
			}
		}
		return also(tx, slices.Clone(became))
	})
}

// lookUp returns which rows are not to be recorded, and "" for the others. What it does not see is of the transaction
// since or a later one. While the roll-ups are far behind, it returns errUnread.
func lookUp(ctx context.Context, pool *pgxpool.Pool, rows []*request[recoveredRow]) (became []Recovery, since int64, err error) {
	became = make([]Recovery, len(rows))
	err = Transact(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, indexesOnly); err != nil {
			return err
		}
		// In a statement before, so that it is of an earlier snapshot.
		if err := tx.QueryRow(ctx, "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint").Scan(&since); err != nil {
			return err
		}
		var unread int
		err := tx.QueryRow(ctx, "SELECT count(*) FROM (SELECT FROM upcall.upload_events e WHERE "+isUnread+" LIMIT $1) AS unread",
			mostUnread).Scan(&unread)
		if err != nil {
			return err
		}
		if unread == mostUnread {
			return errUnread
		}
		verdicts, err := newWriter(Config{}, lookKind).insert(ctx, tx.Conn(), rows)
		if err != nil {
			return err
		}
		for i, q := range rows {
			if n, found := slices.BinarySearchFunc(verdicts, q.id, compareResult); found {
				became[i] = verdictOf[verdicts[n].outcome]
			}
		}
		return nil
	})
	return became, since, err
}

// tooOld is the outcome of what retention has dropped.
const tooOld outcome = 'l'

var verdictOf = map[outcome]Recovery{fresh: Recovered, 'k': AlreadyKnown, revoked: RecoveryRevoked, tooOld: RecoveryTooOld}

// writeRecovered writes rows, and returns those that it wrote, and those that were revoked meanwhile. It waits so long
// for other transactions.
func writeRecovered(ctx context.Context, tx pgx.Tx, rows []*request[recoveredRow], most time.Duration) ([]result, error) {
	// The lock lets a request to erase wait for us, see [Eraser.begin]: what it erases, we must not copy.
	_, err := tx.Exec(ctx, indexesOnly+"; LOCK TABLE upcall.refused_callbacks IN ROW EXCLUSIVE MODE; SELECT pg_current_xact_id()")
	if err != nil {
		return nil, err
	}
	for began := time.Now(); ; {
		var quiet bool
		err := tx.QueryRow(ctx, "SELECT pg_snapshot_xmin(pg_current_snapshot()) >= pg_current_xact_id()").Scan(&quiet)
		if err != nil {
			return nil, err
		}
		if quiet {
			break
		}
		if time.Since(began) > most {
			return nil, errHeld
		}
		if err := pause(ctx, quietLook); err != nil {
			return nil, err
		}
	}
	return newWriter(Config{}, recoveredKind).insert(ctx, tx.Conn(), rows)
}

// KeptSince returns the beginning of the oldest month that is kept, or the zero time if all are.
func KeptSince(now time.Time, days int) time.Time {
	if days <= 0 {
		return time.Time{}
	}
	return monthOf(now.AddDate(0, 0, -days))
}

// A recoveredRow is an event with what it is compared by.
type recoveredRow struct {
	eventRow
	plainETag string
	shortID   string // the request id; "" if it is too long for an index
	since     *int64 // the transactions that may be new
}

// maxIndexed is how long a request id may be, as in package rollup.
const maxIndexed = 128

func newRecoveredRow(e *event.Event) (recoveredRow, error) {
	row, err := newEventRow(e)
	if err != nil {
		return recoveredRow{}, err
	}
	r := recoveredRow{eventRow: row, plainETag: event.PlainETag(e.Callback.ETag), shortID: e.Callback.RequestID}
	if len(r.shortID) > maxIndexed {
		r.shortID = ""
	}
	return r, nil
}

// same reports whether two events tell of the same upload.
func (r *recoveredRow) same(other *recoveredRow) bool {
	return r.ID == other.ID || r.shortID != "" && r.shortID == other.shortID ||
		r.UploadID.Valid && r.UploadID == other.UploadID && r.plainETag != "" && r.plainETag == other.plainETag &&
			(r.Callback.Object == "" || other.Callback.Object == "" || r.Callback.Object == other.Callback.Object)
}

// recoveredFields are the columns of events and the other parameters.
var recoveredFields = func() []field[recoveredRow] {
	var fields []field[recoveredRow]
	for _, f := range notifiedFields {
		if f.name != "noticed_at" {
			fields = append(fields, field[recoveredRow]{
				name: f.name, value: f.value, pointer: func(r *recoveredRow) any { return f.pointer(&r.eventRow) },
			})
		}
	}
	return append(fields,
		field[recoveredRow]{name: "plain_etag", pointer: func(r *recoveredRow) any { return &r.plainETag }, aside: true},
		field[recoveredRow]{name: "short_id", pointer: func(r *recoveredRow) any { return &r.shortID }, aside: true},
		field[recoveredRow]{name: "since", pointer: func(r *recoveredRow) any { return &r.since }, aside: true, once: true})
}()

// lookFields are those that an event is looked up by.
var lookFields = slices.DeleteFunc(slices.Clone(recoveredFields), func(f field[recoveredRow]) bool {
	return !slices.Contains([]string{"id", "received_at", "bucket", "object_key", "upload_id", "source", "plain_etag", "short_id"}, f.name)
})

// The statements name a given event g, and an event that may tell of the same upload e.
const (
	plainETag = `upper(btrim(e.etag, '"') COLLATE "C")`
	isRevoked = `EXISTS (SELECT FROM upcall.revoked_uploads r WHERE r.upload_id = g.upload_id)`
	// isUnread is that the roll-ups have not read an event, or only just.
	isUnread = `e.recorded_xid IS NOT NULL
		AND e.recorded_xid >= coalesce((SELECT recorded_xid FROM upcall.feed_consumers WHERE name = 'rollup'), '0')`
	// sameObject is for what a listing told, or tells.
	sameObject = `(g.source = 'reconcile' OR e.source = 'reconcile' AND g.upload_id IS NULL) AND e.object_key = g.object_key
		AND e.bucket = g.bucket AND e.plain_etag = g.plain_etag AND e.received_at` + near
	near = ` BETWEEN g.received_at - ` + event.ListedApartSQL + ` AND g.received_at + ` + event.ListedApartSQL
)

var (
	placedKey = placed("e", "object_key")
	placedSQL = placed("e", "bucket") + " AS bucket, " + placedKey + " AS object_key"
)

// lookKind finds which events are not to be recorded.
//
// The events of an upload are found by callback_ids, in one index whatever the number of months. An event
// without an upload is looked for in the objects of the roll-ups, and in what those have not read yet, and so is
// any for a listing. One that has neither an upload nor bucket and key, or no request id, cannot be found.
var lookKind = kind[recoveredRow]{
	fields: lookFields,
	insert: newStatement("upcall_recover_look", `
		WITH unread AS MATERIALIZED (
			SELECT e.request_id, e.source, `+placedSQL+`, `+plainETag+` AS plain_etag, e.received_at
			FROM upcall.upload_events e
			WHERE `+isUnread+` AND (e.request_id = ANY ({short_id}) OR `+placedKey+` = ANY ({object_key}))
		)
		SELECT id, verdict FROM (
			SELECT id, CASE
				WHEN EXISTS (SELECT FROM upcall.callback_ids c WHERE c.upload_id = coalesce(g.upload_id, `+noUpload+`) AND c.id = g.id)
					OR EXISTS (SELECT FROM upcall.callback_ids c CROSS JOIN LATERAL (
						SELECT etag, request_id, object_key FROM upcall.upload_events there
						WHERE there.received_at = c.received_at AND there.id = c.id OFFSET 0
					) AS e WHERE c.upload_id = g.upload_id
						AND (`+plainETag+` = g.plain_etag AND coalesce(e.object_key = g.object_key, true) OR e.request_id = g.short_id))
					OR EXISTS (SELECT FROM unread e WHERE e.request_id = g.short_id OR `+sameObject+`)
					OR EXISTS (SELECT FROM upcall.recovered_uploads r WHERE r.request_id = g.short_id)
					OR (g.source = 'reconcile' OR g.upload_id IS NULL) AND EXISTS (SELECT FROM upcall.recovered_uploads r
						WHERE 'reconcile' IN (g.source, r.source) AND r.object_key = g.object_key AND r.bucket = g.bucket
							AND r.etag = g.plain_etag AND r.received_at`+near+`)
					OR EXISTS (SELECT FROM upcall.rollup_objects o
						WHERE o.generation = (SELECT generation FROM upcall.rollup_generations WHERE stage = 'current')
							AND o.object_key = g.object_key AND o.bucket = g.bucket
							AND (g.short_id IN (o.request_id, o.first_request_id) OR EXISTS (
								SELECT FROM upcall.rollup_versions v
								WHERE v.generation = o.generation AND v.number = o.number AND v.request_id = g.short_id)
							OR g.source = 'reconcile' AND (
								upper(btrim(o.etag, '"') COLLATE "C") = g.plain_etag AND o.received_at`+near+`
								OR o.first_etag = g.plain_etag AND o.first_at`+near+`
								OR EXISTS (SELECT FROM upcall.rollup_versions v WHERE v.generation = o.generation
									AND v.number = o.number AND v.etag = g.plain_etag AND v.received_at`+near+`))))
					THEN 'k'
				WHEN g.received_at < (SELECT dropped_before FROM upcall.feed_log) THEN 'l'
				WHEN `+isRevoked+` THEN 'r'
			END::"char" AS verdict
			FROM unnest({id}, {received_at}, {bucket}, {object_key}, {upload_id}, {source}, {plain_etag}, {short_id})
				AS g (id, received_at, bucket, object_key, upload_id, source, plain_etag, short_id)
		) AS judged
		WHERE verdict IS NOT NULL`, lookFields),
}

// recoveredKind writes events, unless one of the transactions that may be new tells of the same, or the upload was
// revoked.
var recoveredKind = kind[recoveredRow]{
	fields: recoveredFields,
	insert: newStatement("upcall_recover", `
		WITH recent AS MATERIALIZED (
			SELECT e.upload_id, e.request_id, e.source, `+placedSQL+`, `+plainETag+` AS plain_etag, e.received_at
			FROM upcall.upload_events e
			WHERE e.recorded_xid IS NOT NULL AND e.recorded_xid >= ({since})[1]::text::xid8
		), fresh AS (
			INSERT INTO upcall.callback_ids (upload_id, id, received_at)
			SELECT coalesce(g.upload_id, `+noUpload+`), g.id, g.received_at
			FROM unnest({id}, {received_at}, {bucket}, {object_key}, {upload_id}, {source}, {plain_etag}, {short_id})
				AS g (id, received_at, bucket, object_key, upload_id, source, plain_etag, short_id)
			WHERE NOT `+isRevoked+` AND NOT EXISTS (SELECT FROM recent e WHERE e.request_id = g.short_id
				OR e.upload_id = g.upload_id AND e.plain_etag = g.plain_etag AND coalesce(e.object_key = g.object_key, true)
				OR `+sameObject+`)
			ON CONFLICT DO NOTHING
			RETURNING id
		), recorded AS (
			INSERT INTO upcall.upload_events ({columns})
			SELECT {values} FROM {given} JOIN fresh USING (id)
			RETURNING id
		), noted AS (
			INSERT INTO upcall.recovered_uploads (event_id, received_at, source, bucket, object_key, upload_id, etag, request_id)
			SELECT g.* FROM unnest({id}, {received_at}, {source}, {bucket}, {object_key}, {upload_id}, {plain_etag}, {short_id})
				AS g (id, received_at, source, bucket, object_key, upload_id, etag, request_id) JOIN fresh USING (id)
			ON CONFLICT DO NOTHING
		)
		SELECT id, 'n'::"char" FROM recorded
		UNION ALL SELECT id, 'r' FROM unnest({id}, {upload_id}) AS g (id, upload_id) WHERE `+isRevoked+`
		UNION ALL SELECT NULL, NULL WHERE `+barrier, recoveredFields),
}
