package feed

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"upcall/internal/eventstore"
	"upcall/migrations"
)

const (
	// skipTick is how often skips are looked at. They are written when none has come for
	// skipQuiet, and otherwise every skipAfter. Consumers with nothing to do say Skip once a second, so
	// that skipQuiet is longer: else each time would end in a write.
	skipTick, skipQuiet, skipAfter = 100 * time.Millisecond, 1500 * time.Millisecond, 5 * time.Second
)

// Skip says that there is nothing to do for the consumer up to a cursor. The cursor is moved there
// within seconds, in one statement with those of other leases: a hundred consumers that want
// little of the log do not make a hundred commits. A Commit before that does it as well. If the
// cursor in the database is not that of the lease, the lease ends.
func (l *Lease) Skip(to Cursor) {
	now := time.Now()
	l.mu.Lock()
	changed := l.skipTo != to
	l.skipTo = to
	l.mu.Unlock()
	if changed {
		c := l.consumers
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.skipped.IsZero() {
			c.skipped = now
		}
		c.skippedLast = now
	}
}

// mustSkip reports whether it is time to write skips.
func (c *Consumers) mustSkip(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.skipped.IsZero() && (now.Sub(c.skippedLast) >= skipQuiet || now.Sub(c.skipped) >= skipAfter)
}

// skipSQL moves cursors that are where they are thought to be, and belong to the holder.
var skipSQL = `
	UPDATE upcall.feed_consumers c SET (` + cursorColumns + `, updated_at, lease_until) =
		(n.system_identifier, n.timeline, n.recorded_xid, n.received_at, n.id, now(), now() + $2::interval)
	FROM unnest($3::text[], $4::bigint[], $5::integer[], $6::xid8[], $7::timestamptz[], $8::uuid[],
			$9::bigint[], $10::integer[], $11::xid8[], $12::timestamptz[], $13::uuid[])
		AS n (name, system_identifier, timeline, recorded_xid, received_at, id,
			old_system_identifier, old_timeline, old_recorded_xid, old_received_at, old_id)
	WHERE c.name = n.name AND c.lease_holder = $1 AND c.system_identifier = n.old_system_identifier AND c.timeline = n.old_timeline
		AND c.recorded_xid IS NOT DISTINCT FROM n.old_recorded_xid AND c.received_at IS NOT DISTINCT FROM n.old_received_at
		AND c.id = n.old_id
	RETURNING c.name`

// skip moves the cursors of all leases that have something to skip and are not just being
// committed.
func (c *Consumers) skip(ctx context.Context) error {
	c.mu.Lock()
	c.skipped = time.Time{}
	c.mu.Unlock()
	moving := make(map[string]*Lease)
	targets := make(map[string]Cursor)
	var names []string
	var from, to cursorArrays
	for _, l := range c.held() {
		if !l.moving.TryLock() {
			continue
		}
		defer l.moving.Unlock()
		l.mu.Lock()
		cursor, target := l.cursor, l.skipTo
		l.mu.Unlock()
		if target == (Cursor{}) || target == cursor {
			continue
		}
		moving[l.name], targets[l.name] = l, target
		names = append(names, l.name)
		from.add(cursor)
		to.add(target)
	}
	if len(names) == 0 {
		return nil
	}
	began := time.Now()
	args := append([]any{c.config.Holder, c.config.Lease, names}, to.values()...)
	var moved []string
	_, err := eventstore.Exec(ctx, c.config.Pool, "", skipSQL, func(rows pgx.Rows) (err error) {
		moved, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	}, append(args, from.values()...)...)
	if err != nil && migrations.ServerError(err).SeverityUnlocalized == "ERROR" {
		return fmt.Errorf("skip: %w", eventstore.Unavailable(err)) // nothing was moved
	}
	if err == nil {
		for _, name := range moved {
			moving[name].movedTo(targets[name], began)
			delete(moving, name)
		}
	}
	for _, l := range moving { // it was moved by others, or what was committed is not known
		l.end(ErrLost)
	}
	if err != nil {
		return fmt.Errorf("skip: %w", eventstore.Unavailable(err))
	}
	return nil
}

// cursorArrays are cursors as the parameters of one statement, in the order of cursorColumns.
type cursorArrays struct {
	systems   []int64
	timelines []int32
	xids      []*uint64
	times     []*time.Time
	ids       []uuid.UUID
}

func (a *cursorArrays) add(c Cursor) {
	values := c.values()
	a.systems, a.timelines = append(a.systems, values[0].(int64)), append(a.timelines, values[1].(int32))
	at, _ := values[3].(*time.Time)
	a.xids, a.times, a.ids = append(a.xids, values[2].(*uint64)), append(a.times, at), append(a.ids, c.id)
}

func (a *cursorArrays) values() []any { return []any{a.systems, a.timelines, a.xids, a.times, a.ids} }
