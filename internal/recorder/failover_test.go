package recorder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/callbackspec"
	"upcall/internal/dbtest"
	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/spool"
	"upcall/internal/testing/wait"
)

// A faulty store is PostgreSQL with late or missing answers.
type faulty struct {
	*eventstore.Recorder
	fault atomic.Pointer[func(context.Context, *event.Event) error] // nil for none
	asked atomic.Int64
}

func (f *faulty) set(fault func(context.Context, *event.Event) error) {
	if fault == nil {
		f.fault.Store(nil)
		return
	}
	f.fault.Store(&fault)
}

func (f *faulty) Record(ctx context.Context, e *event.Event) (bool, error) {
	f.asked.Add(1)
	if fault := f.fault.Load(); fault != nil {
		if err := (*fault)(ctx, e); err != nil {
			return false, err
		}
	}
	return f.Recorder.Record(ctx, e)
}

func (f *faulty) Ping(ctx context.Context) error {
	if fault := f.fault.Load(); fault != nil {
		if err := (*fault)(ctx, nil); err != nil {
			return err
		}
	}
	return f.Recorder.Ping(ctx)
}

func away(context.Context, *event.Event) error {
	return fmt.Errorf("%w: pulled out", event.ErrUnavailable)
}

func newFaulty(t *testing.T, pool *pgxpool.Pool) *faulty {
	t.Helper()
	recorder, err := eventstore.NewRecorder(eventstore.Config{Pool: dbtest.Beside(t, pool, eventstore.OpenRecorder),
		CommitTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(recorder.Close)
	return &faulty{Recorder: recorder}
}

func openSpool(t *testing.T, dir string, change func(*spool.Config)) *spool.Spool {
	t.Helper()
	c := spool.Config{Dir: dir, MinFreeBytes: -1, Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&c)
	}
	s, err := spool.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// patient gives PostgreSQL much time. With other tests on a slow machine, it may need more
// than a callback has.
func patient(primary Primary, fallback Fallback) *Failover {
	return New(primary, fallback, Config{PrimaryTimeout: time.Minute, Logger: slog.New(slog.DiscardHandler)})
}

// drains runs the failover until the test ends, or stop is called.
func drains(t *testing.T, f *Failover) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { f.Run(ctx) })
	stop = func() { cancel(); group.Wait() }
	t.Cleanup(stop)
	return stop
}

func newEvent() *event.Event {
	return &event.Event{ID: uuid.New(), ReceivedAt: time.Now().UTC().Truncate(time.Microsecond),
		UploadID: uuid.NullUUID{UUID: uuid.New(), Valid: true}, Source: event.SourceCallback,
		Callback: callbackspec.Callback{Bucket: "demo", Object: "a"}}
}

func rows(t *testing.T, pool *pgxpool.Pool, id uuid.UUID) int {
	t.Helper()
	var n int
	if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM upcall.upload_events WHERE id = $1", id).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func record(t *testing.T, f *Failover, e *event.Event, want Outcome) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	got, err := f.Record(ctx, e)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("outcome (-want +got):\n%s", diff)
	}
}

var (
	committed      = Outcome{Durable: InPostgres}
	committedTwice = Outcome{Durable: InPostgres, Duplicate: true}
	spooled        = Outcome{Durable: InSpool}
	spooledTwice   = Outcome{Durable: InSpool, Duplicate: true}
)

// TestRepeats: a repeat is a duplicate wherever the first event is, and there is one row.
func TestRepeats(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, eventstore.Open)
	store, queue := newFaulty(t, pool), openSpool(t, t.TempDir(), nil)
	f := patient(store, queue)
	find := func(e *event.Event, want Durable) {
		t.Helper()
		if got, err := f.Find(t.Context(), e.ID, e.UploadID); got != want || err != nil {
			t.Errorf("found %q, %v, want %q", got, err, want)
		}
	}
	first, second := newEvent(), newEvent()
	find(first, "")
	record(t, f, first, committed)
	record(t, f, first, committedTwice)
	find(first, InPostgres)

	store.set(away)
	record(t, f, second, spooled)
	record(t, f, second, spooledTwice)
	find(second, InSpool)
	if _, err := f.Find(t.Context(), uuid.New(), uuid.NullUUID{}); !errors.Is(err, event.ErrUnavailable) {
		t.Errorf("find while PostgreSQL is away: %v", err)
	}
	record(t, f, first, spooled) // only PostgreSQL knows that it is a repeat

	asked := store.asked.Load()
	record(t, f, newEvent(), spooled)
	if store.asked.Load() != asked {
		t.Error("a callback waited for a PostgreSQL that is known to be away")
	}

	store.set(nil)
	record(t, f, second, spooledTwice) // it has not moved yet
	drains(t, f)
	wait.Until(t, "the spool is empty", func() bool { return queue.Stats().Queued == 0 && !f.away.Load() })
	record(t, f, second, committedTwice)
	record(t, f, first, committedTwice)
	record(t, f, newEvent(), committed)
	for _, e := range []*event.Event{first, second} {
		if n := rows(t, pool, e.ID); n != 1 {
			t.Errorf("%d rows of one event", n)
		}
	}
}

// TestLateCommit: PostgreSQL commits, but answers after its share of the time.
func TestLateCommit(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, eventstore.Open)
	store, queue := newFaulty(t, pool), openSpool(t, t.TempDir(), nil)
	f := patient(store, queue)
	f.config.PrimaryTimeout = 100 * time.Millisecond
	e := newEvent()
	store.set(func(ctx context.Context, late *event.Event) error {
		if late == nil || late.ID != e.ID {
			return nil
		}
		if _, err := store.Recorder.Record(context.WithoutCancel(ctx), late); err != nil {
			t.Error(err)
		}
		<-ctx.Done()
		return fmt.Errorf("%w: %w", event.ErrUnavailable, ctx.Err())
	})
	record(t, f, e, spooled)
	f.config.PrimaryTimeout = time.Minute
	if n := rows(t, pool, e.ID); n != 1 {
		t.Fatalf("%d rows, want 1 from the late commit", n)
	}
	record(t, f, e, spooledTwice)
	store.set(nil)
	drains(t, f)
	wait.Until(t, "the spool is empty", func() bool { return queue.Stats().Queued == 0 && !f.away.Load() })
	record(t, f, e, committedTwice)
	if n := rows(t, pool, e.ID); n != 1 {
		t.Errorf("%d rows of one event", n)
	}
}

// TestInsertInFlight: the event is spooled and moved before its first insert ends.
func TestInsertInFlight(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, eventstore.Open)
	store, queue := newFaulty(t, pool), openSpool(t, t.TempDir(), nil)
	f := patient(store, queue)
	e := newEvent()
	inFlight, goOn := make(chan struct{}), make(chan struct{})
	var insert sync.WaitGroup
	var once sync.Once
	store.set(func(ctx context.Context, _ *event.Event) error {
		err := error(nil)
		once.Do(func() {
			insert.Go(func() {
				<-goOn
				if duplicate, err := store.Recorder.Record(context.Background(), e); err != nil || !duplicate {
					t.Errorf("the late insert: duplicate %v, %v", duplicate, err)
				}
			})
			close(inFlight)
			err = away(ctx, nil)
		})
		return err
	})
	record(t, f, e, spooled)
	<-inFlight
	drains(t, f)
	wait.Until(t, "the spool is empty", func() bool { return queue.Stats().Queued == 0 && !f.away.Load() })
	close(goOn)
	insert.Wait()
	if n := rows(t, pool, e.ID); n != 1 {
		t.Errorf("%d rows of one event", n)
	}
}

// TestTwoSpools: OSS's second URL leads to another receiver, which spools the same events.
func TestTwoSpools(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, eventstore.Open)
	events := []*event.Event{newEvent(), newEvent(), newEvent()}
	var queues []*spool.Spool
	for range 2 {
		store, queue := newFaulty(t, pool), openSpool(t, t.TempDir(), nil)
		f := patient(store, queue)
		store.set(away)
		for _, e := range events {
			record(t, f, e, spooled)
		}
		store.set(nil)
		drains(t, f)
		queues = append(queues, queue)
	}
	for _, queue := range queues {
		wait.Until(t, "the spool is empty", func() bool { return queue.Stats().Queued == 0 })
	}
	for _, e := range events {
		if n := rows(t, pool, e.ID); n != 1 {
			t.Errorf("%d rows of one event", n)
		}
	}
}

// TestRevokedMeanwhile: a callback is recorded even if the upload is revoked after the
// acknowledgement.
func TestRevokedMeanwhile(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, eventstore.Open)
	store, queue := newFaulty(t, pool), openSpool(t, t.TempDir(), nil)
	f := patient(store, queue)
	store.set(away)
	revoked, other := newEvent(), newEvent()
	record(t, f, revoked, spooled)
	record(t, f, other, spooled)
	if _, err := pool.Exec(t.Context(), "INSERT INTO upcall.revoked_uploads VALUES ($1, now())", revoked.UploadID); err != nil {
		t.Fatal(err)
	}
	store.set(nil)
	drains(t, f)
	wait.Until(t, "the spool is empty", func() bool { return queue.Stats().Queued == 0 && !f.away.Load() })
	if got := queue.Stats().DeadLetters; got != 0 || rows(t, pool, revoked.ID) != 1 || rows(t, pool, other.ID) != 1 {
		t.Errorf("%d dead letters, %d and %d rows", got, rows(t, pool, revoked.ID), rows(t, pool, other.ID))
	}
}

// TestFindsDeadLetter: a dead letter has no row but was acknowledged, so it is found, even
// while PostgreSQL is away.
func TestFindsDeadLetter(t *testing.T) {
	t.Parallel()
	store, queue := newFaulty(t, dbtest.Pool(t, eventstore.Open)), openSpool(t, t.TempDir(), nil)
	f := patient(store, queue)
	store.set(away)
	e := newEvent()
	record(t, f, e, spooled)
	store.set(func(context.Context, *event.Event) error { return event.ErrUnstorable })
	if _, err := queue.Move(t.Context(), store.Record, 1); err != nil || queue.Stats().DeadLetters != 1 {
		t.Fatalf("it is not a dead letter: %v", err)
	}
	for _, isAway := range []bool{true, false} {
		f.away.Store(isAway)
		if got, err := f.Find(t.Context(), e.ID, e.UploadID); got != InSpool || err != nil {
			t.Errorf("away %v: found %q, %v", isAway, got, err)
		}
	}
	if got, err := f.Find(t.Context(), uuid.New(), e.UploadID); got != "" || err != nil {
		t.Errorf("another event was found: %q, %v", got, err)
	}
	if err := queue.Discard([]uuid.UUID{e.ID}); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Find(t.Context(), e.ID, e.UploadID); got != "" || err != nil {
		t.Errorf("after it was discarded: found %q, %v", got, err)
	}
}

// TestErrors: errors that a spool cannot prevent.
func TestErrors(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, eventstore.Open)
	store := newFaulty(t, pool)
	full := openSpool(t, t.TempDir(), func(c *spool.Config) { c.MaxBytes = 1 })
	f := patient(store, full)

	bad := newEvent()
	bad.Callback.Object = "\x00"
	if _, err := f.Record(t.Context(), bad); !errors.Is(err, event.ErrUnstorable) || f.away.Load() {
		t.Errorf("an event that PostgreSQL cannot hold: %v, away %v", err, f.away.Load())
	}
	gone, cancel := context.WithCancel(t.Context())
	store.set(func(ctx context.Context, _ *event.Event) error {
		cancel()
		return ctx.Err()
	})
	if got, err := f.Record(gone, newEvent()); got != committed || err != nil || f.away.Load() {
		t.Errorf("a sender that has left: %v, %v, away %v", got, err, f.away.Load())
	}
	store.set(func(context.Context, *event.Event) error { return event.ErrQueueFull })
	if _, err := f.Record(t.Context(), newEvent()); !errors.Is(err, event.ErrSpoolFull) || !errors.Is(err, event.ErrUnavailable) ||
		f.away.Load() {
		t.Errorf("both full: %v, away %v", err, f.away.Load())
	}
	store.set(away)
	if _, err := f.Record(t.Context(), newEvent()); !errors.Is(err, event.ErrSpoolFull) || !f.away.Load() {
		t.Errorf("away and full: %v, away %v", err, f.away.Load())
	}

	// Without a spool, events are refused at once until PostgreSQL is back.
	f = patient(store, nil)
	for range 2 {
		if _, err := f.Record(t.Context(), newEvent()); !errors.Is(err, event.ErrUnavailable) {
			t.Errorf("away without a spool: %v", err)
		}
	}
	drains(t, f)
	store.set(nil)
	wait.Until(t, "PostgreSQL is back", func() bool { return !f.away.Load() })
	record(t, f, newEvent(), committed)
}
