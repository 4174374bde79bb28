package feed

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"upcall/internal/event"
	"upcall/internal/testing/wait"
)

func TestPages(t *testing.T) {
	t.Parallel()
	w := shared(t)
	start := must(w.Now(t.Context()))(t)
	if ids, _ := drain(t, w.Log, start, 10); len(ids) != 0 {
		t.Errorf("an empty log has %d entries", len(ids))
	}
	var all [][]uuid.UUID
	for range 5 {
		all = append(all, add(t, w.pool, time.Now(), 7))
	}
	got, end := drainUntil(t, w.Log, start, 35)
	wantOnce(t, got, all...)
	if again, _ := drainUntil(t, w.another(t), must(w.Oldest(t.Context()))(t), 35); !cmp.Equal(got, again) {
		t.Error("another reader sees another order")
	}
	if ids, same := drain(t, w.Log, end, 10); len(ids) != 0 || same.compare(end.position) < 0 {
		t.Errorf("after the end are %d entries, and %v", len(ids), same)
	}
	page := must(w.Page(t.Context(), start, 3))(t)
	if len(page.Entries) != 3 || page.Next != page.Entries[2].Cursor || page.Entries[0].Event.Callback.Bucket != "b" {
		t.Errorf("got %+v", page)
	}
}

// TestWritersCommitOutOfOrder: what is written first and committed last comes first, and
// nothing is told that it may still come before.
func TestWritersCommitOutOfOrder(t *testing.T) {
	t.Parallel()
	w := own(t)
	start := must(w.Now(t.Context()))(t)
	slow, quick := begin(t, w.pool), begin(t, w.pool)
	first := add(t, slow, time.Now(), 3)
	second := add(t, quick, time.Now().Add(-time.Minute), 3)
	commit(t, quick)
	third := add(t, w.pool, time.Now(), 3)
	reader := w.another(t)
	ids, after := drain(t, reader, start, 10)
	if len(ids) != 0 {
		t.Errorf("%d entries were told early", len(ids))
	}
	commit(t, slow)
	got, _ := drain(t, reader, after, 2)
	wantOnce(t, got[:3], first)
	wantOnce(t, got[3:6], second)
	wantOnce(t, got[6:], third)
}

// TestManyWritersMissNothing: readers that follow the head see each entry once, all in the same
// order, while writers commit in whatever order.
func TestManyWritersMissNothing(t *testing.T) {
	t.Parallel()
	w := own(t)
	start := must(w.Now(t.Context()))(t)
	const writers, each, rows = 8, 40, 3
	type result struct {
		ids []uuid.UUID
		err error
	}
	results := make(chan result)
	logs := []*Log{w.Log, w.Log, w.another(t)}
	for _, log := range logs {
		go func() {
			var r result
			for after := start; len(r.ids) < writers*each*rows && r.err == nil; {
				var page Page
				page, r.err = log.Next(t.Context(), after, 50)
				for _, e := range page.Entries {
					r.ids = append(r.ids, e.Event.ID)
				}
				after = page.Next
			}
			results <- r
		}()
	}
	written := make(chan []uuid.UUID)
	for n := range writers {
		go func() {
			var ids []uuid.UUID
			for i := range each {
				tx, err := w.pool.Begin(t.Context())
				if err != nil {
					t.Error(err)
					break
				}
				ids = append(ids, add(t, tx, time.Now(), rows)...)
				// A later transaction commits in between.
				if _, err := tx.Exec(t.Context(), "SELECT pg_sleep($1)", float64((n+i)%5)/500); err != nil {
					t.Error(err)
				}
				if err := tx.Commit(t.Context()); err != nil {
					t.Error(err)
				}
				w.Wake()
			}
			written <- ids
		}()
	}
	var all []uuid.UUID
	for range writers {
		all = append(all, <-written...)
	}
	var order []uuid.UUID
	for range logs {
		r := <-results
		if r.err != nil {
			t.Fatal(r.err)
		}
		wantOnce(t, r.ids, all)
		if order == nil {
			order = r.ids
		} else if !cmp.Equal(order, r.ids) {
			t.Error("two readers saw different orders")
		}
	}
}

func TestNextWaits(t *testing.T) {
	t.Parallel()
	w := shared(t)
	start := must(w.Now(t.Context()))(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	page, err := w.Next(ctx, start, 10)
	if err != nil || len(page.Entries) != 0 || page.Next == (Cursor{}) {
		t.Errorf("got %v, %v; want an empty page when the time is over", page, err)
	}
	pages := make(chan Page, 100)
	for range cap(pages) {
		go func() {
			page, err := w.Next(t.Context(), start, 10)
			if err != nil {
				t.Error(err)
			}
			pages <- page
		}()
	}
	wait.Until(t, "all wait", func() bool {
		w.tail.mu.Lock()
		defer w.tail.mu.Unlock()
		return w.tail.waiting == cap(pages)
	})
	before := w.config.Pool.Stat().AcquireCount()
	ids := add(t, w.pool, time.Now(), 1)
	for range cap(pages) {
		if page := <-pages; len(page.Entries) != 1 || page.Entries[0].Event.ID != ids[0] {
			t.Errorf("got %v", page)
		}
	}
	if n := w.config.Pool.Stat().AcquireCount() - before; n > 50 {
		t.Errorf("%d readers took %d statements", cap(pages), n)
	}
}

func TestUnknownCursor(t *testing.T) {
	t.Parallel()
	w := shared(t)
	now := must(w.Now(t.Context()))(t)
	var gone *GoneError
	if _, err := w.Page(t.Context(), Cursor{system: 1, timeline: 1, position: position{xid: 5}}, 10); !errors.As(err, &gone) ||
		gone.Oldest.cluster() != now.cluster() {
		t.Errorf("got %v, want ErrGone with the oldest", err)
	}
	later := now
	later.timeline++
	if _, err := w.Page(t.Context(), later, 10); !errors.Is(err, ErrBehind) {
		t.Errorf("got %v, want ErrBehind", err)
	}
	// A number that no transaction has had is read again from the mark.
	ids := add(t, w.pool, time.Now(), 2)
	ahead := now
	ahead.xid += 1 << 20
	got, _ := drainUntil(t, w.Log, ahead, 2)
	wantOnce(t, got, ids)
}

// TestHeadGoesOnBesideLaggards: readers that are behind have only part of the connections, so
// the head is read however many they are.
func TestHeadGoesOnBesideLaggards(t *testing.T) {
	t.Parallel()
	w := shared(t)
	start := must(w.Now(t.Context()))(t)
	pages := make(chan Page, 1)
	go func() {
		page, err := w.Next(t.Context(), start, 10)
		if err != nil {
			t.Error(err)
		}
		pages <- page
	}()
	wait.Until(t, "a reader waits at the head", func() bool {
		w.tail.mu.Lock()
		defer w.tail.mu.Unlock()
		return w.tail.waiting > 0
	})
	for range mostReading {
		w.reading <- struct{}{} // a page that takes long
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := w.Page(ctx, start, 1); !errors.Is(err, event.ErrUnavailable) {
		t.Errorf("a reader that is behind got %v, want event.ErrUnavailable", err)
	}
	ids := add(t, w.pool, time.Now(), 1)
	if page := <-pages; len(page.Entries) != 1 || page.Entries[0].Event.ID != ids[0] {
		t.Errorf("got %v", page)
	}
}
