package feed

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// A Consumer is a row of upcall.feed_consumers.
type Consumer struct {
	Name      string
	Cursor    Cursor
	Holder    string    // of the lease; "" if there is none
	Until     time.Time // the lease ends, by PostgreSQL's clock
	UpdatedAt time.Time // when the cursor was moved, by PostgreSQL's clock
}

// AddConsumer adds a consumer at a cursor of [Log.Now], [Log.Oldest] or [Log.Since]. The error
// wraps [ErrExists] if there is one with the name.
func AddConsumer(ctx context.Context, tx pgx.Tx, name string, at Cursor) error { return errSkeleton }

// RemoveConsumer removes a consumer. A holder's next Commit fails. The error wraps
// [ErrNoConsumer] if there is none with the name.
func RemoveConsumer(ctx context.Context, tx pgx.Tx, name string) error { return errSkeleton }

// MoveConsumer sets a consumer's cursor, to replay or to skip. A holder's next Commit fails, and
// its lease ends with it. The error wraps [ErrNoConsumer] if there is none with the name.
func MoveConsumer(ctx context.Context, tx pgx.Tx, name string, to Cursor) error { return errSkeleton }

// ListConsumers returns all consumers by name.
func ListConsumers(ctx context.Context, pool *pgxpool.Pool) ([]Consumer, error) {
	return nil, errSkeleton
}

// ConsumersConfig configures [Consumers].
type ConsumersConfig struct {
	// Pool is from eventstore.OpenFeed. Required.
	Pool *pgxpool.Pool
	// Holder names this process; it must be unique. Default a random name.
	Holder string
	// Lease is how long others wait after this process was killed; default 15 s.
	Lease time.Duration
}

// Consumers holds leases for one process.
type Consumers struct {
	config ConsumersConfig
}

// NewConsumers returns Consumers without leases. Leases are renewed while Run runs.
func NewConsumers(config ConsumersConfig) (*Consumers, error) {
	if config.Pool == nil {
		return nil, errors.New("consumers config: Pool is required")
	}
	config.Lease = cmp.Or(config.Lease, 15*time.Second)
	return &Consumers{config: config}, nil
}

// Run renews the leases until ctx ends, then releases them.
func (c *Consumers) Run(ctx context.Context) { <-ctx.Done() }

// Acquire returns new leases on those of the named consumers that no one has; names that do
// not exist are ignored. It is one statement, however many names there are.
func (c *Consumers) Acquire(ctx context.Context, names []string) ([]*Lease, error) {
	return nil, errSkeleton
}

// A Lease is the right to work for a consumer. One goroutine uses it at a time.
type Lease struct{}

// Name returns the consumer's name.
func (l *Lease) Name() string { return "" }

// Cursor returns where the consumer is.
func (l *Lease) Cursor() Cursor { return Cursor{} }

// Context ends when the lease is lost, released, or could not be renewed in time. Do nothing
// for the consumer that must not be done twice at once after that.
func (l *Lease) Context() context.Context { return context.Background() }

// Commit moves the consumer's cursor and does the work in the same transaction. The work may be
// nil, and must be short: a transaction that writes holds up all readers of the log. If the
// cursor in the database is not that of the lease, or the lease is another's, nothing
// changes, the error wraps [ErrLost], and the lease ends. It also ends if the connection
// breaks, because then it is not known what was committed: acquire it again.
func (l *Lease) Commit(ctx context.Context, to Cursor, work func(tx pgx.Tx) error) error {
	return errSkeleton
}

// Release ends the lease, so that another receiver can acquire it at once.
func (l *Lease) Release(ctx context.Context) error { return errSkeleton }
