package confirm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/eventstore"
	"upcall/internal/feed"
	"upcall/internal/oss"
)

// Consumer is the name of the consumer of the log.
const Consumer = "confirm"

const (
	// pageSize is how many events are read at once, and chunk how many are settled in one transaction: so
	// many are looked at again after a kill.
	pageSize, chunk = 1000, 32
	// lookEvery is how often a worker looks for a lease, for events that are due, and for those that are
	// old enough.
	lookEvery = time.Second
	// warnEvery is how often the same trouble is logged.
	warnEvery = time.Minute
	// DefaultRate is how many objects are asked for in a second, and DefaultGrace when an object that
	// differs is looked at again.
	DefaultRate, DefaultGrace = 50, 5 * time.Minute
)

// Header asks OSS for objects; oss.Client does. Tests have another.
type Header interface {
	Head(ctx context.Context, bucket, key string) (oss.Head, error)
}

// Config configures a [Worker].
type Config struct {
	// Pool is from eventstore.OpenFeed. Required.
	Pool *pgxpool.Pool
	// Log is what is read. Required.
	Log *feed.Log
	// Consumers has the lease. Its Run need not run: [Worker.Run] does that. Required.
	Consumers *feed.Consumers
	// OSS is asked. Required.
	OSS Header
	// Logger is told of findings and dead letters. Required.
	Logger *slog.Logger
	// Mode says which events. Required: a worker that is off is not made.
	Mode Mode
	// Grace is how long an object that differs is given for the callback of a later upload; default
	// DefaultGrace, below 0 none.
	Grace time.Duration
	// Wait is how old an event is when it is looked at, so that its notification may have come. Default 0.
	Wait time.Duration
	// Rate is how many objects are asked for in a second; default DefaultRate.
	Rate float64
	// Now is the clock. Default time.Now.
	Now func() time.Time

	tick time.Duration // of tests; default lookEvery
}

// A Worker confirms while it has the lease, one of all receivers at a time.
type Worker struct {
	config  Config
	metrics *metrics
	pace    *pacer
	cursor  atomic.Pointer[feed.Cursor] // nil if it does not work

	mu     sync.Mutex
	warned map[string]time.Time
}

// New returns a worker, which works while Run runs.
func New(config Config) (*Worker, error) {
	if config.Pool == nil || config.Log == nil || config.Consumers == nil || config.OSS == nil || config.Logger == nil ||
		!config.Mode.On() {
		return nil, errors.New("confirm config: Pool, Log, Consumers, OSS, Logger and a Mode that is on are required")
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	config.Grace, config.Rate = max(cmp.Or(config.Grace, DefaultGrace), 0), cmp.Or(config.Rate, DefaultRate)
	config.tick = cmp.Or(config.tick, lookEvery)
	return &Worker{config: config, metrics: newMetrics(), pace: newPacer(config.Rate), warned: make(map[string]time.Time)}, nil
}

// Run confirms until ctx ends.
func (w *Worker) Run(ctx context.Context) {
	leasing, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var work, leases sync.WaitGroup
	leases.Go(func() { w.config.Consumers.Run(leasing) })
	work.Go(func() { w.serve(ctx) })
	work.Go(func() { w.measure(ctx) })
	work.Wait()
	stop()
	leases.Wait()
}

// serve works whenever it gets the lease.
func (w *Worker) serve(ctx context.Context) {
	for ctx.Err() == nil {
		lease, err := w.acquire(ctx)
		if err == nil && lease != nil {
			err = w.work(ctx, lease)
			_ = lease.Release(ctx) // or it runs out
		}
		if err != nil && ctx.Err() == nil && !errors.Is(err, feed.ErrLost) {
			w.warn(ctx, "uploads are not confirmed", err)
		}
		sleep(ctx, w.config.tick)
	}
}

// acquire returns the lease, nil if another receiver has it. At first it makes the consumer, at the end of
// the log: what was recorded before confirmation was on is not looked at.
func (w *Worker) acquire(ctx context.Context) (*feed.Lease, error) {
	leases, err := w.config.Consumers.Acquire(ctx, []string{Consumer})
	if err != nil || len(leases) == 1 {
		return append(leases, nil)[0], err
	}
	there := false
	_, err = eventstore.Exec(ctx, w.config.Pool, "", "SELECT EXISTS (SELECT FROM upcall.feed_consumers WHERE name = $1)",
		func(rows pgx.Rows) (err error) {
			there, err = pgx.CollectExactlyOneRow(rows, pgx.RowTo[bool])
			return err
		}, Consumer)
	if err != nil || there {
		return nil, err
	}
	now, err := w.config.Log.Now(ctx)
	if err != nil {
		return nil, err
	}
	err = eventstore.Transact(ctx, w.config.Pool, func(tx pgx.Tx) error { return feed.AddConsumer(ctx, tx, Consumer, now) })
	if err != nil && !errors.Is(err, feed.ErrExists) { // another receiver was quicker
		return nil, err
	}
	return nil, nil // its lease is acquired the next time
}

// Behind returns a line if there are events that are not confirmed yet.
func (w *Worker) Behind(ctx context.Context) ([]string, error) {
	consumers, err := feed.ListConsumers(ctx, w.config.Pool)
	if err != nil {
		return nil, err
	}
	for _, c := range consumers {
		if c.Name != Consumer {
			continue
		}
		lag, err := w.config.Log.Lag(ctx, c.Cursor)
		if err != nil {
			return nil, err
		}
		waiting, err := w.waiting(ctx)
		if err != nil || lag.Events == 0 && waiting == 0 {
			return nil, err
		}
		return []string{fmt.Sprintf("confirmation: %d events, %d to be looked at again", lag.Events, waiting)}, nil
	}
	return []string{"confirmation: not begun"}, nil
}

// waiting returns how many events are to be looked at again.
func (w *Worker) waiting(ctx context.Context) (n int, err error) {
	_, err = eventstore.Exec(ctx, w.config.Pool, "", "SELECT count(*) FROM upcall.confirm_retries WHERE due_at IS NOT NULL",
		func(rows pgx.Rows) (err error) {
			n, err = pgx.CollectExactlyOneRow(rows, pgx.RowTo[int])
			return err
		})
	if err != nil {
		return 0, fmt.Errorf("count what is looked at again: %w", eventstore.Unavailable(err))
	}
	return n, nil
}

// sleep reports whether it slept for so long.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
