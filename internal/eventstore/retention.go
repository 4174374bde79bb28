package eventstore

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/fault"
	"upcall/migrations"
)

// MinRetention is the fewest days that events are kept. Their ids are deleted with them, and
// must outlive every upload token, so that no callback counts twice.
const MinRetention = 31

const (
	// expiredMark is the comment of a partition that is being dropped. A partition that
	// someone detached by hand, to keep it, does not have this comment, and stays.
	expiredMark = "Expired: receiver serve --retention is about to drop it."
	// stepTimeout bounds each statement. Detaching waits for all readers.
	stepTimeout = "60s"
	// parentTimeout is how long recording may be blocked if PostgreSQL cannot detach without a
	// lock on the parent.
	parentTimeout = "200ms"

	// The errors of DETACH … CONCURRENTLY if there is a default partition, which Upcall does
	// not make, and if PostgreSQL is older than 14.
	objectNotInPrerequisiteState = "55000"
	syntaxError                  = "42601"
)

// Dropped says what was deleted.
type Dropped struct {
	Months   []string // as "2026_11"
	IDs      int      // rows of callback_ids
	Issued   int      // rows of issued_uploads
	Refusals int      // rows of refused_callbacks
	Kept     int64    // events that a [Keeper] has
}

// DropExpired drops the oldest month of events if all of it is older than that many days. It
// also deletes the month's rows in callback_ids, the issued uploads of that time that have no
// event left, and older refusals. Call it regularly: it resumes an interrupted run.
//
// A month has expired when both now and PostgreSQL's clock say so, and each call drops only
// one, so that a clock that jumps ahead does not delete everything.
//
// It does not block recording or reading. It detaches a month, and only then deletes its ids,
// in small steps with pauses between them; in the other order, a repeat of a callback in that
// month could be recorded again. While another process does this, it does nothing. A late
// event of a dropped month makes the month again.
func DropExpired(ctx context.Context, pool *pgxpool.Pool, now time.Time, days int) (Dropped, error) {
	return DropKept(ctx, pool, now, days, nil)
}

// DropKept is [DropExpired], but hands each month over before it drops it; a nil keeper takes none. If that fails,
// nothing is dropped, and the error wraps [ErrHeldBack].
func DropKept(ctx context.Context, pool *pgxpool.Pool, now time.Time, days int, keeper Keeper) (Dropped, error) {
	if days < MinRetention {
		return Dropped{}, fmt.Errorf("drop expired events: %d days are less than %d", days, MinRetention)
	}
	// One connection does the work and another one holds the lock, in a transaction, so that the
	// lock is not left behind in a pooler's session. A transaction without a snapshot holds up
	// nothing else.
	settings := map[string]string{"statement_timeout": stepTimeout, "lock_timeout": stepTimeout}
	conn, err := connect(ctx, pool, settings)
	if err != nil {
		return Dropped{}, fmt.Errorf("drop expired events: %w", unavailable(err))
	}
	defer conn.Close(context.WithoutCancel(ctx))
	guard, err := connect(ctx, pool, settings)
	if err != nil {
		return Dropped{}, fmt.Errorf("drop expired events: %w", unavailable(err))
	}
	defer guard.Close(context.WithoutCancel(ctx))
	lock, err := guard.Begin(ctx)
	if err != nil {
		return Dropped{}, fmt.Errorf("drop expired events: %w", unavailable(err))
	}
	// Closing does not wait until the server has released the lock, so the next run could still
	// find it taken.
	defer func() {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = lock.Rollback(bounded)
	}()
	x := expirer{conn: conn, lock: lock, pool: pool, keeper: keeper}
	if err := x.run(ctx, now, days); err != nil {
		if migrations.ServerError(err).Code == insufficientPrivilege {
			err = fault.New(ErrMistake, "", "run receiver maintain --retention with the role that owns the tables, every day",
				"%s", fault.Line(err.Error()))
		}
		return x.dropped, fmt.Errorf("drop expired events: %w", unavailable(err))
	}
	return x.dropped, nil
}

// An expirer drops expired rows and counts them.
type expirer struct {
	conn    *pgx.Conn
	lock    pgx.Tx // ends the lock when it ends
	pool    *pgxpool.Pool
	keeper  Keeper // nil if none takes what expires
	dropped Dropped
}

// rest leaves recorders half of the time since began.
func (x *expirer) rest(ctx context.Context, began time.Time) error {
	if err := pause(ctx, time.Since(began)); err != nil {
		return err
	}
	return x.locked(ctx)
}

// locked returns an error if the lock was lost, so that no two do the same at once.
func (x *expirer) locked(ctx context.Context) error {
	_, err := x.lock.Exec(ctx, "SELECT 1")
	return err
}

func (x *expirer) run(ctx context.Context, now time.Time, days int) error {
	var locked bool
	var theirs time.Time
	if _, err := x.lock.Exec(ctx, "SET LOCAL idle_in_transaction_session_timeout = 0"); err != nil {
		return err
	}
	err := x.lock.QueryRow(ctx, "SELECT pg_try_advisory_xact_lock($1), now()", migrations.LockRetention).Scan(&locked, &theirs)
	if err != nil || !locked {
		return err
	}
	limit := expiry(now, theirs, days)
	if err := x.dropRefusals(ctx, limit); err != nil {
		return err
	}
	months, err := x.months(ctx)
	if err != nil {
		return err
	}
	kept, one := monthOf(limit), false // since when events are kept, and whether a month was dropped
	for _, m := range months {
		if err := x.locked(ctx); err != nil {
			return err
		}
		switch {
		case m.detached: // by an earlier, interrupted run
			if err := x.drop(ctx, m); err != nil {
				return err
			}
		case m.state != attached && !m.marked:
			// Someone detached it by hand.
		case one, m.begins.AddDate(0, 1, 0).After(limit):
			if m.begins.Before(kept) {
				kept = m.begins
			}
		default:
			one = true
			// While the month is there for everyone, because this may fail for a long time.
			if _, err := x.keep(ctx, m, partitionName(m.begins)); err != nil {
				return err
			}
			if err := x.detach(ctx, m); err != nil {
				return err
			}
			if err := x.drop(ctx, m); err != nil {
				return err
			}
		}
	}
	return x.dropIssued(ctx, kept)
}

// expiry returns the time before which events expire, by the clock that is behind.
func expiry(ours, theirs time.Time, days int) time.Time {
	if theirs.Before(ours) {
		ours = theirs
	}
	return ours.AddDate(0, 0, -days)
}

// A month is a table of events that is, or was, a partition.
type month struct {
	begins   time.Time
	detached bool   // and renamed
	state    string // one of the constants
	marked   bool   // with expiredMark
}

const (
	attached = "attached"
	pending  = "pending" // DETACH … CONCURRENTLY was interrupted
)

func (m month) name() string        { return pgx.Identifier{"upcall", partitionName(m.begins)}.Sanitize() }
func (m month) expiredName() string { return m.begins.Format(expiredLayout) }
func (m month) expired() string     { return pgx.Identifier{"upcall", m.expiredName()}.Sanitize() }

const expiredLayout = "expired_events_2006_01"

// months returns the detached months first, then the partitions, each the oldest first.
func (x *expirer) months(ctx context.Context) ([]month, error) {
	// to_jsonb, because PostgreSQL before 14 has no column inhdetachpending.
	rows, _ := x.conn.Query(ctx, `
		SELECT c.relname, coalesce(obj_description(c.oid, 'pg_class') = $1, false),
			CASE WHEN i.inhrelid IS NULL THEN 'alone' WHEN (to_jsonb(i)->>'inhdetachpending')::boolean THEN 'pending' ELSE 'attached' END
		FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid AND i.inhparent = 'upcall.upload_events'::regclass
		WHERE c.relnamespace = 'upcall'::regnamespace AND c.relkind = 'r'
		ORDER BY c.relname COLLATE "C"`, expiredMark)
	var months []month
	var name string
	var m month
	_, err := pgx.ForEachRow(rows, []any{&name, &m.marked, &m.state}, func() error {
		for _, layout := range []string{expiredLayout, partitionLayout} {
			if begins, err := time.Parse(layout, name); err == nil {
				m.begins, m.detached = begins, layout == expiredLayout
				months = append(months, m)
			}
		}
		return nil
	})
	return months, err
}

// detach takes a month out of the table and renames it, so that a late event makes a new one.
// An earlier run may have done any of the steps.
func (x *expirer) detach(ctx context.Context, m month) error {
	if m.state == attached {
		// Before, so that no reader finds entries missing without finding this.
		if err := x.noteGone(ctx, m.begins, m.name()); err != nil {
			return err
		}
		if _, err := x.conn.Exec(ctx, "COMMENT ON TABLE "+m.name()+" IS '"+expiredMark+"'"); err != nil {
			return err
		}
		_, err := x.conn.Exec(ctx, "ALTER TABLE upcall.upload_events DETACH PARTITION "+m.name()+" CONCURRENTLY")
		if code := migrations.ServerError(err).Code; code == objectNotInPrerequisiteState || code == syntaxError {
			err = x.detachLocked(ctx, m)
		}
		if err != nil {
			return err
		}
	}
	if m.state == pending {
		if _, err := x.conn.Exec(ctx, "ALTER TABLE upcall.upload_events DETACH PARTITION "+m.name()+" FINALIZE"); err != nil {
			return err
		}
	}
	return pgx.BeginFunc(ctx, x.conn, func(tx pgx.Tx) error {
		// Recorders that make a month hold this lock, and must not wait long for it.
		locked := fmt.Sprintf("SET LOCAL lock_timeout = '1s'; SELECT pg_advisory_xact_lock(%d)", migrations.LockPartitions)
		if _, err := tx.Exec(ctx, locked); err != nil {
			return err
		}
		// If a recorder has attached the month again for a late event, the next run retries.
		var again bool
		const isAttached = "SELECT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = $1::text::regclass)"
		if err := tx.QueryRow(ctx, isAttached, m.name()).Scan(&again); err != nil {
			return err
		}
		if again {
			return fmt.Errorf("%s was attached again by a late event", partitionName(m.begins))
		}
		_, err := tx.Exec(ctx, "ALTER TABLE "+m.name()+" RENAME TO "+m.expiredName())
		return err
	})
}

// detachLocked blocks recording, but not for long. If that is not enough, the next run retries.
func (x *expirer) detachLocked(ctx context.Context, m month) error {
	return pgx.BeginFunc(ctx, x.conn, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '"+parentTimeout+"'; ALTER TABLE upcall.upload_events DETACH PARTITION "+m.name())
		return err
	})
}

// drop deletes the ids of a detached month and what was found about its events, and then the month.
func (x *expirer) drop(ctx context.Context, m month) error {
	kept, err := x.handDetached(ctx, m)
	if err != nil {
		return err
	}
	// Again, because events may have been recorded since.
	if err := x.noteGone(ctx, m.begins, m.expired()); err != nil {
		return err
	}
	// OFFSET 0 makes PostgreSQL look up the ids one by one, whatever its statistics say. An id
	// that came again after an earlier run had deleted it belongs to a later month and stays.
	step := fmt.Sprintf(`
		WITH step AS MATERIALIZED (
			SELECT received_at, id, upload_id FROM %s
			WHERE (received_at, id) > ($1, $2) ORDER BY received_at, id LIMIT %d
		), gone AS (
			DELETE FROM upcall.callback_ids WHERE ctid = ANY (ARRAY(
				SELECT there.ctid FROM step CROSS JOIN LATERAL (
					SELECT ctid FROM upcall.callback_ids
					WHERE upload_id IN (step.upload_id, `+noUpload+`) AND id = step.id AND received_at < $3 OFFSET 0
				) AS there))
			RETURNING id
		)
		SELECT received_at, id, (SELECT count(*) FROM gone) FROM step ORDER BY received_at DESC, id DESC LIMIT 1`,
		m.expired(), trimStep)
	var lastTime time.Time
	var lastID uuid.UUID
	for {
		began := time.Now()
		rows, _ := x.conn.Query(ctx, step, lastTime, lastID, m.begins.AddDate(0, 1, 0))
		var gone int
		tag, err := pgx.ForEachRow(rows, []any{&lastTime, &lastID, &gone}, func() error { return nil })
		if err != nil {
			return err
		}
		x.dropped.IDs += gone
		if tag.RowsAffected() == 0 {
			break
		}
		if err := x.rest(ctx, began); err != nil {
			return err
		}
	}
	if err := x.dropFound(ctx, m); err != nil {
		return err
	}
	if err := x.dropTable(ctx, m, kept); err != nil {
		return err
	}
	x.dropped.Months = append(x.dropped.Months, m.begins.Format("2006_01"))
	return nil
}

// dropIssued deletes the uploads that were issued before a time, with their revocations, unless
// they still have an event. An upload whose events were dropped would look unused.
func (x *expirer) dropIssued(ctx context.Context, before time.Time) error {
	for {
		began := time.Now()
		var gone int
		err := x.conn.QueryRow(ctx, `
			WITH gone AS (
				DELETE FROM upcall.issued_uploads WHERE ctid = ANY (ARRAY(
					SELECT ctid FROM upcall.issued_uploads issued
					WHERE issued_at < $1 AND NOT EXISTS (SELECT FROM upcall.upload_events WHERE upload_id = issued.upload_id OFFSET 0)
					LIMIT $2))
				RETURNING upload_id
			), forgotten AS (
				DELETE FROM upcall.revoked_uploads WHERE upload_id IN (SELECT upload_id FROM gone)
			)
			SELECT count(*) FROM gone`, before, trimStep).Scan(&gone)
		if err != nil || gone == 0 {
			return err
		}
		x.dropped.Issued += gone
		if err := x.rest(ctx, began); err != nil {
			return err
		}
	}
}

func (x *expirer) dropRefusals(ctx context.Context, limit time.Time) error {
	for {
		tag, err := x.conn.Exec(ctx, `
			DELETE FROM upcall.refused_callbacks WHERE ctid = ANY (ARRAY(
				SELECT ctid FROM upcall.refused_callbacks WHERE refused_at < $1 LIMIT $2))`, limit, trimStep)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return nil
		}
		x.dropped.Refusals += int(tag.RowsAffected())
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
