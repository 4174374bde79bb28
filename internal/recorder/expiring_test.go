package recorder

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/testing/wait"
)

// TestExpiringMonth: a reader delays the drop of a month. A spooled event of that month does
// not block other events, and can be recorded later.
func TestExpiringMonth(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, eventstore.Open)
	store, queue := newFaulty(t, pool), openSpool(t, t.TempDir(), nil)
	f := patient(store, queue)
	late, other := newEvent(), newEvent()
	late.ReceivedAt = time.Date(late.ReceivedAt.Year()-1, late.ReceivedAt.Month(), 15, 0, 0, 0, 0, time.UTC)
	// The first call makes the month of the late event.
	for _, ahead := range []time.Time{late.ReceivedAt.AddDate(0, 1, 0), other.ReceivedAt} {
		if err := eventstore.EnsurePartitions(t.Context(), pool, ahead); err != nil {
			t.Fatal(err)
		}
	}
	reading, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer reading.Rollback(context.Background())
	if _, err := reading.Exec(t.Context(), "SELECT count(*) FROM upcall.upload_events"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var dropping sync.WaitGroup
	dropping.Go(func() {
		for ctx.Err() == nil { // each call drops one month at most
			eventstore.DropExpired(ctx, pool, time.Now(), 300)
		}
	})
	t.Cleanup(dropping.Wait)
	t.Cleanup(cancel)
	pending := func() (n int) {
		if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_inherits WHERE inhdetachpending").Scan(&n); err != nil {
			t.Error(err)
		}
		return n
	}
	wait.Until(t, "the month is being detached", func() bool { return pending() == 1 })

	store.set(away)
	record(t, f, late, spooled)
	record(t, f, other, spooled)
	store.set(nil)
	drains(t, f)
	wait.Until(t, "the spool is empty", func() bool { return queue.Stats().Queued == 0 && !f.away.Load() })
	if got := queue.Stats().DeadLetters; got != 1 || rows(t, pool, other.ID) != 1 || pending() != 1 {
		t.Errorf("%d dead letters, %d rows of the other, %d months being detached", got, rows(t, pool, other.ID), pending())
	}
	record(t, f, newEvent(), committed)

	if err := reading.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, "the month is detached", func() bool { return pending() == 0 })
	cancel()
	dropping.Wait()
	if err := queue.Retry([]uuid.UUID{late.ID}); err != nil {
		t.Fatal(err)
	}
	f.wake()
	wait.Until(t, "the late event is recorded", func() bool { return rows(t, pool, late.ID) == 1 })
}
