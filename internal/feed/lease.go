package feed

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/eventstore"
	"upcall/migrations"
)

// ConsumersConfig configures [Consumers].
type ConsumersConfig struct {
	// Pool is from eventstore.OpenFeed. Required.
	Pool *pgxpool.Pool
	// Holder names this process; it must be unique. Default the host's name and a random text.
	Holder string
	// Lease is how long others wait after this process was killed; default 15 s.
	Lease time.Duration
}

// Consumers holds leases for one process.
type Consumers struct {
	config ConsumersConfig

	mu                   sync.Mutex
	leases               map[string]*Lease
	skipped, skippedLast time.Time // the first and last skip that is not written; zero if there is none
}

// NewConsumers returns Consumers without leases. Leases are renewed while Run runs.
func NewConsumers(config ConsumersConfig) (*Consumers, error) {
	if config.Pool == nil {
		return nil, errors.New("consumers config: Pool is required")
	}
	host, _ := os.Hostname() // only for people who read the table
	config.Holder = cmp.Or(config.Holder, fmt.Sprintf("%s/%d/%.8s", cmp.Or(host, "receiver"), os.Getpid(), rand.Text()))
	config.Lease = cmp.Or(config.Lease, 15*time.Second)
	return &Consumers{config: config, leases: make(map[string]*Lease)}, nil
}

// Run renews the leases and moves the cursors of [Lease.Skip] until ctx ends, then releases the
// leases.
func (c *Consumers) Run(ctx context.Context) {
	ticker := time.NewTicker(c.config.Lease / 3)
	defer ticker.Stop()
	skips := time.NewTicker(skipTick)
	defer skips.Stop()
	for {
		select {
		case <-skips.C:
			if c.mustSkip(time.Now()) {
				bounded, cancel := context.WithTimeout(ctx, c.config.Lease/3)
				_ = c.skip(bounded) // again at the next time, or the leases have ended
				cancel()
			}
		case <-ticker.C:
			bounded, cancel := context.WithTimeout(ctx, c.config.Lease/3)
			_ = c.renew(bounded) // the leases end if that fails too often
			cancel()
		case <-ctx.Done():
			for _, l := range c.held() {
				if l.Release(ctx) != nil {
					break // they run out by themselves
				}
			}
			return
		}
	}
}

// Acquire returns new leases on those of the named consumers that no one has; names that do
// not exist are ignored. It is one statement, however many names there are.
func (c *Consumers) Acquire(ctx context.Context, names []string) ([]*Lease, error) {
	var wanted []string
	c.mu.Lock()
	for _, name := range names {
		if c.leases[name] == nil {
			wanted = append(wanted, name)
		}
	}
	c.mu.Unlock()
	if len(wanted) == 0 {
		return nil, nil
	}
	began := time.Now()
	var leases []*Lease
	// In the order of the names, so that no two wait for each other. Our own name is on a lease
	// that ended here, but not there.
	err := readConsumers(ctx, c.config.Pool, `
		UPDATE upcall.feed_consumers SET lease_holder = $1, lease_until = now() + $2::interval
		WHERE name IN (
			SELECT name FROM upcall.feed_consumers
			WHERE name = ANY ($3) AND (lease_until IS NULL OR lease_until < now() OR lease_holder = $1)
			ORDER BY name FOR UPDATE SKIP LOCKED
		)
		RETURNING name, `+cursorColumns+`, lease_holder, lease_until, updated_at`, func(row Consumer) {
		leases = append(leases, c.lease(ctx, row, began))
	}, c.config.Holder, c.config.Lease, wanted)
	if err != nil {
		return nil, fmt.Errorf("acquire consumers: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range leases {
		c.leases[l.name] = l
	}
	return leases, nil
}

func (c *Consumers) lease(ctx context.Context, row Consumer, began time.Time) *Lease {
	l := &Lease{consumers: c, name: row.Name, cursor: row.Cursor}
	l.ctx, l.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	l.timer = time.AfterFunc(time.Hour, func() { l.end(ErrLost) })
	l.prolong(began)
	return l
}

func (c *Consumers) held() []*Lease {
	c.mu.Lock()
	defer c.mu.Unlock()
	leases := make([]*Lease, 0, len(c.leases))
	for _, l := range c.leases {
		leases = append(leases, l)
	}
	return leases
}

// renew prolongs the leases, and ends those that are lost. One whose consumer is just being
// changed is left to the next time.
func (c *Consumers) renew(ctx context.Context) error {
	leases := c.held()
	if len(leases) == 0 {
		return nil
	}
	began := time.Now()
	var names []string
	for _, l := range leases {
		names = append(names, l.name)
	}
	ours, renewed := make(map[string]bool), make(map[string]bool)
	_, err := eventstore.Exec(ctx, c.config.Pool, "", `
		WITH renewed AS (
			UPDATE upcall.feed_consumers SET lease_until = now() + $2::interval
			WHERE name IN (
				SELECT name FROM upcall.feed_consumers WHERE name = ANY ($3) AND lease_holder = $1 ORDER BY name FOR UPDATE SKIP LOCKED
			)
			RETURNING name
		)
		SELECT name, name IN (SELECT name FROM renewed) FROM upcall.feed_consumers WHERE name = ANY ($3) AND lease_holder = $1`,
		func(rows pgx.Rows) error {
			for rows.Next() {
				var name string
				var done bool
				if err := rows.Scan(&name, &done); err != nil {
					return err
				}
				ours[name], renewed[name] = true, done
			}
			return rows.Err()
		}, c.config.Holder, c.config.Lease, names)
	if err != nil {
		return fmt.Errorf("renew leases: %w", eventstore.Unavailable(err))
	}
	for _, l := range leases {
		switch {
		case !ours[l.name]:
			l.end(ErrLost)
		case renewed[l.name]:
			l.prolong(began)
		}
	}
	return nil
}

// A Lease is the right to work for a consumer. One goroutine uses it at a time.
type Lease struct {
	consumers *Consumers
	name      string
	ctx       context.Context
	cancel    context.CancelCauseFunc
	timer     *time.Timer

	moving sync.Mutex // held while a statement moves the cursor
	mu     sync.Mutex // guards the rest
	cursor Cursor     // as in the database
	skipTo Cursor     // zero if nothing is to be skipped
}

// Name returns the consumer's name.
func (l *Lease) Name() string { return l.name }

// Cursor returns where the consumer is.
func (l *Lease) Cursor() Cursor {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cursor
}

// movedTo notes that the cursor in the database was moved.
func (l *Lease) movedTo(to Cursor, began time.Time) {
	l.mu.Lock()
	l.cursor, l.skipTo = to, Cursor{}
	l.mu.Unlock()
	l.prolong(began)
}

// Context ends when the lease is lost, released, or could not be renewed in time. Do nothing
// for the consumer that must not be done twice at once after that.
func (l *Lease) Context() context.Context { return l.ctx }

func (l *Lease) prolong(began time.Time) {
	if l.ctx.Err() == nil {
		l.timer.Reset(time.Until(began.Add(l.consumers.config.Lease)))
	}
}

func (l *Lease) end(cause error) {
	l.cancel(cause)
	l.timer.Stop()
	l.consumers.mu.Lock()
	defer l.consumers.mu.Unlock()
	if l.consumers.leases[l.name] == l {
		delete(l.consumers.leases, l.name)
	}
}

// Commit moves the consumer's cursor and does the work in the same transaction. The work may be
// nil, and must be short: a transaction that writes holds up all readers of the log. If the
// cursor in the database is not that of the lease, or the lease is another's, nothing
// changes, the error wraps [ErrLost], and the lease ends. It also ends if the connection
// breaks, because then it is not known what was committed: acquire it again.
func (l *Lease) Commit(ctx context.Context, to Cursor, work func(tx pgx.Tx) error) error {
	l.moving.Lock()
	defer l.moving.Unlock()
	began := time.Now()
	args := append([]any{l.name, l.consumers.config.Holder, l.consumers.config.Lease}, to.values()...)
	// The old cursor is a fence: another holder has moved it, or has another name.
	const name, move = "upcall_cursor", "UPDATE upcall.feed_consumers SET (" + cursorColumns + `, updated_at, lease_until) =
		($4, $5, $6, $7, $8, now(), now() + $3::interval)
		WHERE name = $1 AND lease_holder = $2 AND system_identifier = $9 AND timeline = $10
			AND recorded_xid IS NOT DISTINCT FROM $11 AND received_at IS NOT DISTINCT FROM $12 AND id = $13`
	args = append(args, l.Cursor().values()...)
	var failed error // of the work
	var err error
	if work == nil {
		tag, failure := eventstore.Exec(ctx, l.consumers.config.Pool, name, move, nil, args...)
		if err = failure; err == nil && tag.RowsAffected() == 0 {
			err = ErrLost
		}
	} else {
		err = eventstore.Transact(ctx, l.consumers.config.Pool, func(tx pgx.Tx) error {
			// First, so that a former holder does no work, and two do not work at once.
			statement, err := eventstore.Named(ctx, tx, name, move)
			if err != nil {
				return err
			}
			tag, err := tx.Exec(ctx, statement, args...)
			if err == nil && tag.RowsAffected() == 0 {
				err = ErrLost
			}
			if err != nil {
				return err
			}
			failed = work(tx)
			return failed
		})
	}
	switch {
	case err == nil:
		l.movedTo(to, began)
		return nil
	case errors.Is(err, ErrLost):
		l.end(ErrLost)
	case failed != nil:
		return failed // nothing was committed
	case migrations.ServerError(err).SeverityUnlocalized != "ERROR": // what was committed is not known
		l.end(ErrLost)
		err = eventstore.Unavailable(err)
	default:
		err = eventstore.Unavailable(err)
	}
	return fmt.Errorf("commit consumer %s: %w", l.name, err)
}

// releaseTimeout bounds the end of a lease: without an answer, it runs out by itself.
const releaseTimeout = time.Second

// Release ends the lease, so that another receiver can acquire it at once. It does so after the end of
// ctx, too, but waits for PostgreSQL no longer than a second.
func (l *Lease) Release(ctx context.Context) error {
	l.end(context.Canceled)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	_, err := eventstore.Exec(ctx, l.consumers.config.Pool, "", `UPDATE upcall.feed_consumers SET lease_holder = NULL, lease_until = NULL
		WHERE name = $1 AND lease_holder = $2`, nil, l.name, l.consumers.config.Holder)
	if err != nil {
		return fmt.Errorf("release consumer %s: %w", l.name, eventstore.Unavailable(err))
	}
	return nil
}
