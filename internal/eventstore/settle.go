package eventstore

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/event"
)

// An Outcome is what became of a notification.
type Outcome string

const (
	OutcomeKnown      = Outcome(AlreadyKnown)
	OutcomeRecorded   = Outcome(Recovered)
	OutcomeRevoked    = Outcome(RecoveryRevoked)
	OutcomeTooOld     = Outcome(RecoveryTooOld)
	OutcomeForeign    = Outcome("foreign")    // nothing says that the upload was issued
	OutcomeRemoval    = Outcome("removal")    // it told of a removal
	OutcomeUnrecorded = Outcome("unrecorded") // PostgreSQL does not accept the row
)

const (
	// notifiedKept is how long notifications are kept that became events, or might have. What OSS's
	// message service repeats comes within a day, so others are not kept as long.
	notifiedKept, repeatsKept = 35 * 24 * time.Hour, 2 * 24 * time.Hour
	// keepStep is how many rows of each kind are deleted at once.
	keepStep = 1000
)

// dueSQL reads with the index of what waits, whatever the statistics say.
var dueSQL = "SELECT " + ownColumns + ` FROM upcall.notifications
	WHERE settled_at IS NULL AND noticed_at <= $1 ORDER BY noticed_at LIMIT $2`

// DueNotifications returns notifications that wait since a time or longer, the oldest first. The pool is
// from [Open].
func DueNotifications(ctx context.Context, pool *pgxpool.Pool, since time.Time, limit int) (due []*event.Event, err error) {
	_, err = execOne(ctx, pool, func(rows pgx.Rows) error {
		due, err = pgx.CollectRows(rows, scanEvent)
		return err
	}, dueSQL, since, limit)
	if err != nil {
		return nil, fmt.Errorf("look for notifications: %w", unavailable(err))
	}
	for _, e := range due {
		e.ReceivedAt = e.ReceivedAt.UTC()
	}
	return due, nil
}

// Waiting says how many notifications wait, counted up to a limit, and since when the first does; zero if
// none does.
func Waiting(ctx context.Context, pool *pgxpool.Pool, limit int) (n int, since time.Time, err error) {
	var first *time.Time
	_, err = execOne(ctx, pool, func(rows pgx.Rows) error {
		if !rows.Next() {
			return rows.Err()
		}
		return rows.Scan(&n, &first)
	}, `SELECT count(*), min(noticed_at) FROM (
		SELECT noticed_at FROM upcall.notifications WHERE settled_at IS NULL ORDER BY noticed_at LIMIT $1) AS waiting`, limit)
	if err != nil {
		return 0, time.Time{}, fmt.Errorf("look for notifications: %w", unavailable(err))
	}
	if first != nil {
		since = first.UTC()
	}
	return n, since, nil
}

// Settle notes in a transaction what became of notifications, and returns how many it has settled. It leaves
// out those that another receiver is settling, or has. Variables and addresses are not kept: events have them.
func Settle(ctx context.Context, tx pgx.Tx, ids []uuid.UUID, became Outcome, at time.Time) (settled int64, err error) {
	tag, err := tx.Exec(ctx, `
		UPDATE upcall.notifications SET settled_at = $2, outcome = $3, vars = '{}', client_ip = NULL WHERE id = ANY (ARRAY(
			SELECT id FROM upcall.notifications WHERE id = ANY ($1) AND settled_at IS NULL ORDER BY id FOR UPDATE SKIP LOCKED))`,
		ids, at, string(became))
	if err != nil {
		return 0, fmt.Errorf("settle notifications: %w", err)
	}
	return tag.RowsAffected(), nil
}

// FindKnown returns which events another event tells of, or which are not to be recorded for another reason;
// "" for those that may be recorded. See [Recover].
func FindKnown(ctx context.Context, pool *pgxpool.Pool, events []*event.Event) ([]Recovery, error) {
	rows := make([]*request[recoveredRow], len(events))
	for i, e := range events {
		row, err := newRecoveredRow(e)
		if err != nil {
			return nil, fmt.Errorf("look for events: %w", err)
		}
		rows[i] = &request[recoveredRow]{id: e.ID, row: row}
	}
	found, _, err := lookUp(ctx, pool, rows)
	if err != nil {
		return nil, fmt.Errorf("look for events: %w", unavailable(err))
	}
	return found, nil
}

// KeepNotifications deletes some of what need not be kept any more, and reports whether there may be more. Many
// receivers may do it at once.
func KeepNotifications(ctx context.Context, pool *pgxpool.Pool, now time.Time) (deleted int64, more bool, err error) {
	short := []string{string(OutcomeKnown), string(OutcomeForeign), string(OutcomeRemoval)}
	for _, step := range []struct {
		sql  string
		args []any
	}{
		{`DELETE FROM upcall.notifications WHERE id = ANY (ARRAY(SELECT id FROM upcall.notifications
			WHERE settled_at < $1 AND outcome = ANY ($2) ORDER BY settled_at LIMIT $3 FOR UPDATE SKIP LOCKED))`,
			[]any{now.Add(-repeatsKept), short, keepStep}},
		{`DELETE FROM upcall.notifications WHERE id = ANY (ARRAY(SELECT id FROM upcall.notifications
			WHERE settled_at < $1 ORDER BY settled_at LIMIT $2 FOR UPDATE SKIP LOCKED))`,
			[]any{now.Add(-notifiedKept), keepStep}},
	} {
		tag, err := execOne(ctx, pool, nil, step.sql, step.args...)
		if err != nil {
			return deleted, false, fmt.Errorf("delete notifications: %w", unavailable(err))
		}
		deleted, more = deleted+tag.RowsAffected(), more || tag.RowsAffected() == keepStep
	}
	return deleted, more, nil
}

// isRefusal reports whether PostgreSQL does not accept a row, rather than being away or busy: a constraint
// or a trigger of the operator's says so.
func isRefusal(err error) bool { return isDataError(err) || hasClass(err, "0A", "09", "P0", "44") }
