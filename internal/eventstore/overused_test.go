package eventstore

import (
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"upcall/internal/dbtest"
	"upcall/internal/event"
)

// TestOverused: an upload has as many events as it may have, and its repeats count no more.
func TestOverused(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	r := newRecorder(t, Config{Pool: pool, MaxEvents: 3})
	u, other := smallUpload(), smallUpload()
	first := eventOf(u)
	record(t, r, first, false)
	record(t, r, first, true)
	record(t, r, eventOf(u), false)
	last := eventOf(u)
	record(t, r, last, false)
	for range 2 {
		if _, err := r.Record(t.Context(), eventOf(u)); !errors.Is(err, event.ErrOverused) || errors.Is(err, event.ErrUnavailable) {
			t.Errorf("the fourth: %v, want event.ErrOverused", err)
		}
	}
	record(t, r, first, true)
	record(t, r, last, true)
	// Other uploads, and callbacks without a token, do not suffer.
	record(t, r, eventOf(other), false)
	for range 5 {
		record(t, r, smallEvent(), false)
	}
	// What was acknowledged is recorded.
	acknowledged := eventOf(u)
	acknowledged.Acknowledged = true
	record(t, r, acknowledged, false)
	wantCount(t, pool, 10)
	// Another receiver, and this one after a restart, know it, too. Without a limit there is none.
	again := newRecorder(t, Config{Pool: pool, MaxEvents: 3})
	if _, err := again.Record(t.Context(), eventOf(u)); !errors.Is(err, event.ErrOverused) {
		t.Errorf("after a restart: %v, want event.ErrOverused", err)
	}
	record(t, newRecorder(t, Config{Pool: pool}), eventOf(u), false)
	record(t, newRecorder(t, Config{Pool: pool, MaxEvents: math.MaxInt}), eventOf(u), false)
}

// TestRecoveredCountsForNoCallback: a callback that comes after its upload was recovered is recorded, also if an
// upload may have only one event.
func TestRecoveredCountsForNoCallback(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	r := newRecorder(t, Config{Pool: pool, MaxEvents: 1})
	u := smallUpload()
	mustRecover(t, pool, told(uuid.NullUUID{UUID: u.ID, Valid: true}, "E1", "R1"))
	record(t, r, eventOf(u), false)
	if _, err := r.Record(t.Context(), eventOf(u)); !errors.Is(err, event.ErrOverused) {
		t.Errorf("the second callback: %v, want event.ErrOverused", err)
	}
	wantCount(t, pool, 2)
}

// TestOverusedAtOnce: callbacks that come together do not pass the limit together, and none is
// refused before it is reached.
func TestOverusedAtOnce(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	r := newRecorder(t, Config{Pool: pool, MaxEvents: 10, Writers: 3, MaxBatch: 7})
	u := smallUpload()
	var refused atomic.Int32
	var group sync.WaitGroup
	for range 60 {
		e := eventOf(u)
		for range 2 { // each with a repeat
			group.Go(func() {
				switch _, err := r.Record(t.Context(), e); {
				case errors.Is(err, event.ErrOverused):
					refused.Add(1)
				case err != nil:
					t.Error(err)
				}
			})
		}
	}
	group.Wait()
	var rows int
	err := pool.QueryRow(t.Context(), "SELECT count(*) FROM upcall.upload_events WHERE upload_id = $1", u.ID).Scan(&rows)
	if err != nil || rows != 10 || refused.Load() != 2*50 {
		t.Errorf("%d rows, %d refused, want 10 and 100 (%v)", rows, refused.Load(), err)
	}
	if len(r.under.events) != 0 {
		t.Errorf("%d uploads are still under way", len(r.under.events))
	}
}
