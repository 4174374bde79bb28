package hooks

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"upcall/internal/eventstore"
	"upcall/internal/feed"
)

// The outcomes that are counted.
const (
	delivered = "delivered"
	failed    = "failed" // and is tried again
	dead      = "dead"   // and is not
)

// changes are what a lane has to commit, besides its place in the log.
type changes struct {
	since     time.Time        // when the first came, in real time; zero if there is none
	counts    map[countKey]int // attempts that have ended
	delivered []*delivery      // retries
	failed    []*retryRow      // retries
	state     bool             // of the breaker
	disabled  bool
	confirm   bool
}

type countKey struct {
	hour    time.Time
	outcome string
}

// A retryRow is to be a row of upcall.hook_retries.
type retryRow struct {
	*delivery
	attempts int
	due      time.Time // zero for a dead letter
	failedAt time.Time
	status   int
	problem  string
}

func (l *lane) count(outcome string, now time.Time) {
	l.pump.metrics.count(l.endpoint, outcome)
	if l.pending.since.IsZero() {
		l.pending.since, l.pending.counts = time.Now(), make(map[countKey]int)
	}
	l.pending.counts[countKey{now.UTC().Truncate(time.Hour), outcome}]++
}

// target returns how far the cursor may be moved: to the first delivery that is neither
// delivered nor written as a row, and how many deliveries come before it.
func (l *lane) target() (feed.Cursor, int) {
	for i, d := range l.window {
		if !d.done {
			return d.before, i
		}
	}
	return l.read, len(l.window)
}

// nothing reports whether there are no changes.
func (c *changes) nothing() bool { return !c.state && !c.confirm && c.since.IsZero() }

// mustCommit reports whether it is time.
func (l *lane) mustCommit() bool {
	return l.pending.state || l.pending.confirm || !l.pending.since.IsZero() && time.Since(l.pending.since) >= commitAfter
}

// commit moves the cursor past what is done and writes what belongs to it, in one transaction.
func (l *lane) commit(ctx context.Context) {
	to, passed := l.target()
	var rows []*retryRow
	for _, d := range l.window[:passed] {
		if d.failed != nil {
			rows = append(rows, d.failed)
		}
	}
	endpoint, pending, again := l.endpoint, l.pending, 0
	bounded, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	err := l.lease.Commit(bounded, to, func(tx pgx.Tx) error {
		var b pgx.Batch
		queueFirst(&b, endpoint, rows)
		again = 0
		queueRetries(&b, endpoint, &pending, &again)
		queueCounts(&b, endpoint, pending.counts)
		l.queueState(&b, &pending)
		if b.Len() == 0 {
			return nil
		}
		return tx.SendBatch(bounded, &b).Close()
	})
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, feed.ErrLost) {
			l.pump.warn(ctx, "place of an endpoint was not committed", err)
			_ = sleep(ctx, l.pump.backoff())
		}
		return
	}
	clear(l.window[:passed])
	l.window = l.window[passed:]
	for _, row := range append(rows, pending.failed...) {
		if !row.due.IsZero() && row.due.Before(l.lookAt) {
			l.lookAt = row.due
		}
	}
	for _, row := range pending.failed {
		delete(l.held, row.id)
	}
	for _, d := range pending.delivered {
		delete(l.held, d.id)
	}
	if again > 0 {
		l.lookAt = time.Time{}
	}
	l.pending = changes{}
}

// commitTimeout bounds a commit.
const commitTimeout = 5 * time.Second

// queueFirst adds the rows of first tries that failed. There is one already if an operator had
// the event sent again before its turn.
func queueFirst(b *pgx.Batch, e *Endpoint, rows []*retryRow) {
	if len(rows) == 0 {
		return
	}
	c := columnsOf(rows)
	b.Queue(`
		INSERT INTO upcall.hook_retries (endpoint_id, event_id, received_at, kind, reason, attempts, due_at, status, problem, failed_at)
		SELECT $1, event_id, received_at, kind, 'retry', attempts, due_at, status, problem, failed_at
		FROM unnest($2::uuid[], $3::timestamptz[], $4::text[], $5::integer[], $6::timestamptz[], $7::integer[], $8::text[], $9::timestamptz[])
			AS r (event_id, received_at, kind, attempts, due_at, status, problem, failed_at)
		ON CONFLICT DO NOTHING`, e.ID, c.ids, c.received, c.kinds, c.attempts, c.due, c.statuses, c.problems, c.failedAt)
}

// queueRetries adds what became of retries, and has again count the rows that were written by
// someone else since: an operator has the message sent again after this attempt began. Such a row
// stays as it is.
func queueRetries(b *pgx.Batch, e *Endpoint, pending *changes, again *int) {
	count := func(rows int) func(pgconn.CommandTag) error {
		return func(tag pgconn.CommandTag) error {
			*again += rows - int(tag.RowsAffected())
			return nil
		}
	}
	if len(pending.delivered) > 0 {
		var ids []uuid.UUID
		var written []string
		for _, d := range pending.delivered {
			ids, written = append(ids, d.id), append(written, d.written)
		}
		b.Queue(`
			DELETE FROM upcall.hook_retries r USING unnest($2::uuid[], $3::text[]) AS n (event_id, written)
			WHERE r.endpoint_id = $1 AND r.event_id = n.event_id AND r.xmin = n.written::xid`, e.ID, ids, written).Exec(count(len(ids)))
	}
	if len(pending.failed) > 0 {
		c := columnsOf(pending.failed)
		b.Queue(`
			UPDATE upcall.hook_retries r
			SET attempts = n.attempts, due_at = n.due_at, status = n.status, problem = n.problem, failed_at = n.failed_at
			FROM unnest($2::uuid[], $3::integer[], $4::timestamptz[], $5::integer[], $6::text[], $7::timestamptz[], $8::text[])
				AS n (event_id, attempts, due_at, status, problem, failed_at, written)
			WHERE r.endpoint_id = $1 AND r.event_id = n.event_id AND r.xmin = n.written::xid`,
			e.ID, c.ids, c.attempts, c.due, c.statuses, c.problems, c.failedAt, c.written).Exec(count(len(c.ids)))
	}
}

func queueCounts(b *pgx.Batch, e *Endpoint, counts map[countKey]int) {
	for key, n := range counts {
		b.Queue(`
			INSERT INTO upcall.hook_counts AS c (endpoint_id, hour, outcome, attempts) VALUES ($1, $2, $3, $4)
			ON CONFLICT (endpoint_id, hour, outcome) DO UPDATE SET attempts = c.attempts + excluded.attempts`,
			e.ID, key.hour, key.outcome, n)
	}
}

// queueState adds what the breaker says, and that the endpoint is disabled, unless an operator
// has changed it in the meantime, perhaps resumed it: the lane says it again when it knows.
func (l *lane) queueState(b *pgx.Batch, pending *changes) {
	e := l.endpoint
	if pending.state {
		k := l.breaker
		var since, probeAt time.Time
		var wait time.Duration
		if k.open || pending.disabled {
			since = k.since
		}
		if k.open && !pending.disabled {
			probeAt, wait = k.probeAt, k.pause
		}
		b.Queue(`UPDATE upcall.hook_endpoints SET failing_since = $2, probe_at = $3, probe_pause = $4, reason = $5
			WHERE id = $1 AND version = $6`, e.ID, moment(since), moment(probeAt), pause(wait), text(e.Reason), e.version)
	}
	if pending.disabled {
		b.Queue(`
			WITH changed AS (UPDATE upcall.hook_changes SET version = version + 1 RETURNING version)
			UPDATE upcall.hook_endpoints e SET state = 'disabled', changed_at = $2, version = changed.version
			FROM changed WHERE e.id = $1 AND e.state = 'active' AND e.version = $3`, e.ID, l.pump.now(), e.version)
	}
	if pending.confirm {
		b.Queue("UPDATE upcall.hook_endpoints SET confirmed = $2 WHERE id = $1 AND confirmed < $2", e.ID, e.version)
	}
}

// retryColumns are rows as arrays.
type retryColumns struct {
	ids                []uuid.UUID
	received, failedAt []time.Time
	kinds, problems    []string
	written            []string
	attempts           []int
	due                []*time.Time
	statuses           []*int
}

func columnsOf(rows []*retryRow) (c retryColumns) {
	for _, r := range rows {
		var status *int
		if r.status != 0 {
			status = &r.status
		}
		c.ids, c.received, c.failedAt = append(c.ids, r.id), append(c.received, r.received), append(c.failedAt, r.failedAt)
		c.kinds, c.problems, c.attempts = append(c.kinds, string(r.kind)), append(c.problems, r.problem), append(c.attempts, r.attempts)
		c.due, c.statuses, c.written = append(c.due, moment(r.due)), append(c.statuses, status), append(c.written, r.written)
	}
	return c
}

// lookForRetries loads the retries that are due, when it is time.
func (l *lane) lookForRetries(ctx context.Context) {
	if l.working() && !l.breaker.open && len(l.due) == 0 && !l.pump.now().Before(l.lookAt) {
		l.loadRetries(ctx, maxDue)
	}
}

// loadRetries loads the first retries that are due, with their events, and sets when to look
// again.
func (l *lane) loadRetries(ctx context.Context, limit int) {
	now := l.pump.now()
	held := make([]uuid.UUID, 0, len(l.held))
	for id := range l.held {
		held = append(held, id)
	}
	l.lookAt = now.Add(never)
	var due []*delivery
	_, err := eventstore.Exec(ctx, l.pump.config.Pool, "", `
		SELECT event_id, received_at, kind, reason, attempts, due_at, xmin::text FROM upcall.hook_retries
		WHERE endpoint_id = $1 AND due_at IS NOT NULL AND event_id <> ALL($2) ORDER BY due_at LIMIT $3`, func(rows pgx.Rows) error {
		d, at := new(delivery), time.Time{}
		fields := []any{&d.id, &d.received, (*string)(&d.kind), (*string)(&d.reason), &d.number, &at, &d.written}
		_, err := pgx.ForEachRow(rows, fields, func() error {
			if at.After(now) {
				if at.Before(l.lookAt) {
					l.lookAt = at
				}
				return nil
			}
			one := *d
			due = append(due, &one)
			return nil
		})
		return err
	}, l.endpoint.ID, held, limit)
	if err == nil && len(due) > 0 {
		err = l.loadEvents(ctx, due)
	}
	if err != nil {
		l.pump.warn(ctx, "retries cannot be read", err)
		return
	}
	if len(due) == limit {
		l.lookAt = now
	}
	for _, d := range due {
		l.held[d.id] = true
	}
	l.due = append(l.due, due...)
}
