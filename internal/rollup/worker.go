package rollup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/eventstore"
	"upcall/internal/feed"
)

const (
	// pageSize is how many events are read at once, and the most that are counted in one
	// transaction. Fewer are if that takes longer than mostTime, because a transaction that
	// writes holds up all readers of the log. recentSize is for events that have just come:
	// counting many at once keeps a CPU from the next callbacks for milliseconds, which the
	// slowest hundredth of them shows.
	pageSize, recentSize = 1000, 125
	mostTime             = 60 * time.Millisecond
	// lookEvery is how often a worker looks for a lease, or for what Rebuild asks for.
	lookEvery = time.Second
	// waitForOther is how long a generation that is complete waits until the consumer of the current
	// one has read as much.
	waitForOther = 10 * time.Second
	// warnEvery is how often the same trouble is logged.
	warnEvery = time.Minute
	// defaultPause makes few batches of many events under load: a batch of ten costs PostgreSQL
	// nearly as much as one of a hundred. So a worker reads by itself, and less often than the
	// reader that all at the end of the log share.
	defaultPause = 250 * time.Millisecond
	// paceFor and perCPU keep the CPU for callbacks when they come faster than events can be
	// counted beside them: as long as events are counted within paceFor, no more are counted in a
	// second than perCPU for each CPU of this machine. What is older is counted as fast as
	// possible.
	paceFor = 10 * time.Second
	perCPU  = 2750
)

// Config configures a [Worker].
type Config struct {
	// Pool is from eventstore.OpenFeed. Required.
	Pool *pgxpool.Pool
	// Log is what is read. Required.
	Log *feed.Log
	// Consumers has the leases. Its Run need not run: [Worker.Run] does that. Required.
	Consumers *feed.Consumers
	// Logger is told of dead letters, and of what hinders the work. Required.
	Logger *slog.Logger
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Pause is from one batch to the next at the end of the log; default 250 ms.
	Pause time.Duration
	// Most is how many recent events are counted in a second; default 2750 for each CPU.
	Most int
}

// A Worker counts while it has the lease, one of all receivers at a time.
type Worker struct {
	config  Config
	metrics *metrics
	cursor  atomic.Pointer[feed.Cursor] // of the consumer that it works for; nil if it does not
	// building is when the last event was received that the next generation has counted here.
	building atomic.Pointer[time.Time]
	// behind says that what is read is old: days would change again soon.
	behind   atomic.Bool
	dayTimes dayTimes
	mu       sync.Mutex
	warned   map[string]time.Time
}

// New returns a worker, which works while Run runs.
func New(config Config) (*Worker, error) {
	if config.Pool == nil || config.Log == nil || config.Consumers == nil || config.Logger == nil {
		return nil, errors.New("rollup config: Pool, Log, Consumers and Logger are required")
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	config.Pause, config.Most = cmp.Or(config.Pause, defaultPause), cmp.Or(config.Most, perCPU*runtime.NumCPU())
	return &Worker{config: config, metrics: newMetrics(), warned: make(map[string]time.Time), dayTimes: defaultDayTimes}, nil
}

// Run counts, and builds another generation if one is wanted, until ctx ends.
func (w *Worker) Run(ctx context.Context) {
	leasing, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var work, leases sync.WaitGroup
	leases.Go(func() { w.config.Consumers.Run(leasing) })
	work.Go(func() { w.serve(ctx, Consumer) })
	work.Go(func() { w.serve(ctx, nextConsumer) })
	work.Go(func() { w.measure(ctx) })
	work.Wait()
	stop()
	leases.Wait()
}

// serve works for a consumer whenever it gets the lease.
func (w *Worker) serve(ctx context.Context, name string) {
	for ctx.Err() == nil {
		lease, err := w.acquire(ctx, name)
		if err == nil && lease != nil {
			err = w.work(ctx, lease)
			_ = lease.Release(ctx) // or it runs out
		}
		w.warn(ctx, name, err)
		sleep(ctx, lookEvery)
	}
}

// acquire returns the lease, nil if another receiver has it, and makes the consumer at first.
func (w *Worker) acquire(ctx context.Context, name string) (*feed.Lease, error) {
	leases, err := w.config.Consumers.Acquire(ctx, []string{name})
	if err == nil && len(leases) == 1 {
		return leases[0], nil
	}
	if err != nil || name != Consumer {
		return nil, err
	}
	there := false
	_, err = eventstore.Exec(ctx, w.config.Pool, "", "SELECT EXISTS (SELECT FROM upcall.feed_consumers WHERE name = $1)",
		func(rows pgx.Rows) (err error) {
			there, err = pgx.CollectExactlyOneRow(rows, pgx.RowTo[bool])
			return err
		}, name)
	if err != nil || there {
		return nil, err
	}
	oldest, err := w.config.Log.Oldest(ctx)
	if err != nil {
		return nil, err
	}
	err = eventstore.Transact(ctx, w.config.Pool, func(tx pgx.Tx) error { return feed.AddConsumer(ctx, tx, name, oldest) })
	if err != nil && !errors.Is(err, feed.ErrExists) { // another receiver was quicker
		return nil, err
	}
	return nil, nil // its lease is acquired the next time
}

// A stint is the work for one consumer under one lease.
type stint struct {
	*Worker
	lease *feed.Lease
	mine  generation
	other generation
	now   bool // the consumer is that of the current generation
	days  dayLook
	near  time.Time      // since when the end of the log has been near
	chunk int            // how many events to count in one transaction
	limit int            // how many events to read at once
	there map[group]bool // as in batch
}

// work counts until the lease or ctx ends, or something goes wrong.
func (w *Worker) work(ctx context.Context, lease *feed.Lease) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(lease.Context(), cancel)()
	s := &stint{Worker: w, lease: lease, now: lease.Name() == Consumer, chunk: pageSize, limit: pageSize, there: make(map[group]bool)}
	if s.now {
		defer w.cursor.Store(nil)
		var days sync.WaitGroup
		days.Go(func() { w.keepDays(ctx) })
		defer days.Wait()
		defer cancel()
	}
	for looked := (time.Time{}); ctx.Err() == nil; {
		began := time.Now()
		if time.Since(looked) >= lookEvery {
			if err := s.look(ctx); err != nil {
				return err
			}
			looked = began
		}
		busy := false
		var err error
		if s.now {
			if busy, err = s.tend(ctx); err != nil {
				return err
			}
			if busy {
				looked = time.Time{}
			}
			if err := s.lookAtDays(ctx); err != nil {
				return err
			}
			cursor := lease.Cursor()
			w.cursor.Store(&cursor)
		}
		page, err := s.config.Log.Outline(ctx, lease.Cursor(), s.limit)
		if n := len(page.Entries); s.now {
			s.behind.Store(n > 0 && n == s.limit && s.config.Now().Sub(page.Entries[n-1].Event.ReceivedAt) > time.Minute)
		}
		switch {
		case errors.Is(err, feed.ErrGone):
			err = s.skip(ctx, err)
		case err == nil && len(page.Entries) > 0:
			err = s.count(ctx, page)
		}
		if err == nil && !s.now && len(page.Entries) < s.limit && ctx.Err() == nil {
			ready, covered, err := s.ready(ctx)
			if err != nil {
				return err
			}
			if ready {
				return s.swap(ctx, covered)
			}
			sleep(ctx, 20*time.Millisecond)
		}
		switch {
		case errors.Is(err, errStage):
			looked = time.Time{} // and again
		case err != nil:
			return err
		case s.now && !busy:
			sleep(ctx, s.pace(page)-time.Since(began))
		}
	}
	return nil
}

// look reads which generation is this consumer's.
func (s *stint) look(ctx context.Context) error {
	now, other, err := generations(ctx, s.config.Pool)
	if err != nil {
		return err
	}
	if s.mine, s.other = now, other; !s.now {
		s.mine, s.other = other, now
	}
	if !s.now && s.mine.stage != build {
		return fmt.Errorf("the generation that is built is at %q", s.mine.stage)
	}
	return nil
}

// pace returns how long a page and what follows may take, until the next is read, and sets how large
// that is.
func (s *stint) pace(page feed.Page) time.Duration {
	n, limit := len(page.Entries), s.limit
	if n < limit/4 { // there are no more
		s.limit = recentSize
		return s.config.Pause
	}
	if s.config.Now().Sub(page.Entries[n-1].Event.ReceivedAt) >= paceFor {
		s.limit = pageSize
		return 0
	}
	if s.limit = recentSize; n < limit {
		return s.config.Pause
	}
	return time.Duration(n) * time.Second / time.Duration(s.config.Most)
}

// ready reports whether the consumer is so close to the end of the log that the rest is counted in a
// moment (under load it never is there), and whether the other consumer has read as much. It
// waits for that one, but not long, because that one may not work at all.
func (s *stint) ready(ctx context.Context) (ready, covered bool, err error) {
	lag, err := s.config.Log.Lag(ctx, s.lease.Cursor())
	if err != nil || lag.Events > 2*pageSize {
		s.near = time.Time{}
		return false, false, err
	}
	if s.near.IsZero() {
		s.near = time.Now()
	}
	consumers, err := feed.ListConsumers(ctx, s.config.Pool)
	for _, c := range consumers {
		covered = covered || c.Name == Consumer && c.Cursor.Covers(s.lease.Cursor())
	}
	return covered || time.Since(s.near) > waitForOther, covered, err
}

// skip continues behind what retention has dropped before it was counted.
func (s *stint) skip(ctx context.Context, err error) error {
	var gone *feed.GoneError
	if !errors.As(err, &gone) {
		return err
	}
	if !s.now {
		return s.restart(ctx, "retention dropped events before they were counted")
	}
	s.config.Logger.ErrorContext(ctx, "retention dropped events before roll-ups had counted them", slog.String("error", err.Error()))
	return s.lease.Commit(ctx, gone.Oldest, nil)
}

// warn logs trouble, but the same not all the time.
func (w *Worker) warn(ctx context.Context, name string, err error) {
	if err == nil || ctx.Err() != nil || errors.Is(err, feed.ErrLost) || errors.Is(err, context.Canceled) {
		return
	}
	w.mu.Lock()
	recently := time.Since(w.warned[name]) < warnEvery
	if !recently {
		w.warned[name] = time.Now()
	}
	w.mu.Unlock()
	if !recently {
		w.config.Logger.WarnContext(ctx, "roll-ups are not counted", slog.String("consumer", name), slog.String("error", err.Error()))
	}
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
