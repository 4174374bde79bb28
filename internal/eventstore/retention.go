package eventstore

import (
	"context"
	"fmt"
	"regexp"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/migrations"
)

// MinRetention is the fewest days that events are kept. Their ids go with them, and must
// stay for longer than any upload token lives, so that no callback counts twice.
const MinRetention = 31

const (
	// expiredMark is the comment of a partition that is being dropped. One that someone
	// detached by hand, to keep it, does not have it, and stays.
	expiredMark = "Expired: receiver serve --retention is about to drop it."
	// stepTimeout bounds each statement. To detach waits for all who are reading.
	stepTimeout = "60s"
	// parentTimeout is how long the intake may be held up where PostgreSQL cannot detach
	// without a lock on the parent.
	parentTimeout = "200ms"

	// objectNotInPrerequisiteState says, of DETACH … CONCURRENTLY, that there is a default
	// partition, which Upcall does not make; a syntaxError, that PostgreSQL is older than 14.
	objectNotInPrerequisiteState = "55000"
	syntaxError                  = "42601"
)

// Dropped is what was deleted.
type Dropped struct {
	Months   []string // as "2026_11"
	IDs      int      // rows of callback_ids
	Issued   int      // rows of issued_uploads
	Refusals int      // rows of refused_callbacks
}

// DropExpired drops the oldest month of events if all of it is older than so many days,
// with its rows in callback_ids, the issued uploads of that time that have no event any
// more, and the refusals that are older. Call it regularly: it continues a run that
// was cut short.
//
// A month has passed when both now and PostgreSQL's clock say so, and only one goes each
// time, so that a clock that jumps ahead does not take all with it.
//
// It does not block recording or reading. It takes a month out of the table, and
// only then deletes its ids, in small steps with pauses between; the other order would let
// a repeat of a callback that is still there make a second row. While another process does
// this, it does nothing. A late event of a dropped month makes the month again.
func DropExpired(ctx context.Context, pool *pgxpool.Pool, now time.Time, days int) (Dropped, error) {
	var d Dropped
	if days < MinRetention {
		return d, fmt.Errorf("drop expired events: %d days are less than %d", days, MinRetention)
	}
	// On a connection of its own, with settings of its own, and a lock that ends with it.
	config := pool.Config().ConnConfig
	config.RuntimeParams["statement_timeout"], config.RuntimeParams["lock_timeout"] = stepTimeout, stepTimeout
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return d, fmt.Errorf("drop expired events: %w", unavailable(err))
	}
	defer func() {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		// Closing does not wait until the server has let go of the lock, and the next run
		// would find it taken.
		_, _ = conn.Exec(bounded, "SELECT pg_advisory_unlock_all()")
		conn.Close(bounded)
	}()
	x := expirer{conn: conn, dropped: &d}
	if err := x.run(ctx, now, days); err != nil {
		return d, fmt.Errorf("drop expired events: %w", unavailable(err))
	}
	return d, nil
}

// An expirer works on a connection of its own.
type expirer struct {
	conn    *pgx.Conn
	dropped *Dropped
}

func (x *expirer) run(ctx context.Context, now time.Time, days int) error {
	var locked bool
	var theirs time.Time
	err := x.conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1), now()", migrations.LockRetention).Scan(&locked, &theirs)
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
	kept, one := monthOf(limit), false // from when on events are there, and whether a month went
	for _, m := range months {
		switch {
		case m.detached: // by an earlier run, which was cut short
			if err := x.drop(ctx, m); err != nil {
				return err
			}
		case m.state != attached && !m.marked:
			// Someone else is detaching it.
		case one, m.begins.AddDate(0, 1, 0).After(limit):
			if m.begins.Before(kept) {
				kept = m.begins
			}
		default:
			one = true
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

// expiry returns the time up to which events go: the earlier of what two clocks say.
func expiry(ours, theirs time.Time, days int) time.Time {
	if theirs.Before(ours) {
		ours = theirs
	}
	return ours.AddDate(0, 0, -days)
}

// A month is a table of events that is, or was, a partition.
type month struct {
	begins   time.Time
	detached bool // and renamed
	state    state
	marked   bool
}

// A state is what a partition that has its name still is to the parent.
type state string

const (
	attached state = "attached"
	pending  state = "pending" // DETACH … CONCURRENTLY was cut short
	alone    state = "alone"
)

func (m month) name() string        { return pgx.Identifier{"upcall", partitionName(m.begins)}.Sanitize() }
func (m month) expiredName() string { return m.begins.Format("expired_events_2006_01") }
func (m month) expired() string     { return pgx.Identifier{"upcall", m.expiredName()}.Sanitize() }

var monthName = regexp.MustCompile(`^(upload|expired)_events_(\d{4}_\d{2})$`)

// months returns the detached ones first, then the partitions, each the oldest first.
func (x *expirer) months(ctx context.Context) ([]month, error) {
	// to_jsonb, since PostgreSQL before 14 has no column inhdetachpending.
	rows, err := x.conn.Query(ctx, `
		SELECT c.relname, coalesce(obj_description(c.oid, 'pg_class') = $1, false),
			CASE WHEN i.inhrelid IS NULL THEN 'alone' WHEN (to_jsonb(i)->>'inhdetachpending')::boolean THEN 'pending' ELSE 'attached' END
		FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid AND i.inhparent = 'upcall.upload_events'::regclass
		WHERE c.relnamespace = 'upcall'::regnamespace AND c.relkind = 'r'
		ORDER BY c.relname COLLATE "C"`, expiredMark)
	if err != nil {
		return nil, err
	}
	var months []month
	var name string
	var m month
	_, err = pgx.ForEachRow(rows, []any{&name, &m.marked, &m.state}, func() error {
		parts := monthName.FindStringSubmatch(name)
		if parts == nil {
			return nil
		}
		begins, err := time.Parse("2006_01", parts[2])
		if err != nil {
			return nil // no month of ours
		}
		m.begins, m.detached = begins, parts[1] == "expired"
		months = append(months, m)
		return nil
	})
	return months, err
}

// detach takes a month out of the table and gives it another name, so that a late event
// makes a new one. Every step of it can have been done before.
func (x *expirer) detach(ctx context.Context, m month) error {
	if m.state == attached {
		if _, err := x.conn.Exec(ctx, "COMMENT ON TABLE "+m.name()+" IS '"+expiredMark+"'"); err != nil {
			return err
		}
		_, err := x.conn.Exec(ctx, "ALTER TABLE upcall.upload_events DETACH PARTITION "+m.name()+" CONCURRENTLY")
		switch sqlState(err) {
		case objectNotInPrerequisiteState, syntaxError:
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
		// Recorders that make a month hold the lock; they do not wait longer for us.
		if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '1s'"); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", migrations.LockPartitions); err != nil {
			return err
		}
		// One of them may have attached it again for a late event: then another time.
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

// detachLocked has the intake wait, but not for long. When that is not enough, the next
// run tries again.
func (x *expirer) detachLocked(ctx context.Context, m month) error {
	return pgx.BeginFunc(ctx, x.conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '"+parentTimeout+"'"); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "ALTER TABLE upcall.upload_events DETACH PARTITION "+m.name())
		return err
	})
}

// drop deletes the ids of a detached month, and then the month.
func (x *expirer) drop(ctx context.Context, m month) error {
	// OFFSET 0 makes PostgreSQL look up one id after the other, whatever it thinks of
	// the tables. An id that came again, after an earlier run had deleted it, is of a
	// later month and stays.
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
		rows, err := x.conn.Query(ctx, step, lastTime, lastID, m.begins.AddDate(0, 1, 0))
		if err != nil {
			return err
		}
		var gone int
		tag, err := pgx.ForEachRow(rows, []any{&lastTime, &lastID, &gone}, func() error { return nil })
		if err != nil {
			return err
		}
		x.dropped.IDs += gone
		if tag.RowsAffected() == 0 {
			break
		}
		// Half of the time is for those who record.
		if err := pause(ctx, time.Since(began)); err != nil {
			return err
		}
	}
	if _, err := x.conn.Exec(ctx, "DROP TABLE "+m.expired()); err != nil {
		return err
	}
	x.dropped.Months = append(x.dropped.Months, m.begins.Format("2006_01"))
	return nil
}

// dropIssued deletes the issued uploads of before a time, and that they were revoked, but
// for those that have an event still. One whose events were dropped would look as if it had
// never been used.
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
		if err := pause(ctx, time.Since(began)); err != nil {
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
