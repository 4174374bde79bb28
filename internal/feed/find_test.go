package feed

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/testing/wait"
)

// TestFind: a reader that wants certain entries gets the page with the first of them, whether they
// are there already or come later, and is told how far there are none.
func TestFind(t *testing.T) {
	t.Parallel()
	w := shared(t)
	start := must(w.Now(t.Context()))(t)
	var ids []uuid.UUID
	for range 3 {
		ids = append(ids, add(t, w.pool, time.Now(), 1)...)
	}
	_, before := readSome(t, w.Log, start, 2)
	_, end := readSome(t, w.Log, before, 1)
	w.Log = must(New(Config{Pool: dbtest.Open(t, w.url, eventstore.OpenFeed), Logger: slog.New(slog.DiscardHandler)}))(t)
	running, stop := context.WithCancel(t.Context())
	go w.Run(running)

	var passed atomic.Pointer[Cursor]
	passed.Store(&start) // of an earlier call, which must not set it back
	page := must(w.Find(t.Context(), start, 1, func(s *Sight) bool { return s.ID == ids[2] }, &passed))(t)
	if len(page.Entries) != 1 || page.Next != end || *passed.Load() != before {
		t.Fatalf("got %+v, passed %+v; want the third entry, after %+v", page, passed.Load(), before)
	}

	// At the head, the reader sleeps while there is nothing, and moves with the log all the same.
	var wants atomic.Bool
	pages := make(chan Page, 1)
	find := func(ctx context.Context) {
		page, err := w.Find(ctx, end, 10, func(*Sight) bool { return wants.Load() }, &passed)
		if err != nil {
			t.Error(err)
		}
		pages <- page
	}
	after := func(c *Cursor) []Entry { return must(w.Page(t.Context(), *cmp.Or(c, &end), 100))(t).Entries }
	rest := func() []Entry { return after(passed.Load()) }
	go find(t.Context())
	wait.Until(t, "it waits as a finder", func() bool { // at first it may wait as any reader does
		add(t, w.pool, time.Now(), 1)
		w.tail.mu.Lock()
		defer w.tail.mu.Unlock()
		return len(w.tail.finders) == 1
	})
	for range 3 {
		last := add(t, w.pool, time.Now(), 1)[0]
		wait.Until(t, "it has passed all there is", func() bool {
			return slices.ContainsFunc(after(&end), func(e Entry) bool { return e.Event.ID == last }) && len(rest()) == 0
		})
	}
	// One that is behind finds what others have read already.
	var behind atomic.Pointer[Cursor]
	limited, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	page = must(w.Find(limited, start, 1, func(s *Sight) bool { return s.ID == ids[2] }, &behind))(t)
	cancel()
	if len(page.Entries) != 1 {
		t.Error("a reader that is behind waits for new entries")
	}
	wants.Store(true)
	wanted := add(t, w.pool, time.Now(), 1)[0]
	if page := <-pages; len(page.Entries) != 1 || page.Entries[0].Event.ID != wanted {
		t.Errorf("got %+v, want %v", page, wanted)
	}
	if got := rest(); len(got) != 1 || got[0].Event.ID != wanted {
		t.Errorf("%d entries come after what it has passed, want the one that it wanted", len(got))
	}

	// It ends with its context, and with the tail.
	wants.Store(false)
	bounded, cancel := context.WithCancel(t.Context())
	go find(bounded)
	cancel()
	if page := <-pages; len(page.Entries) > 0 || page.Next == (Cursor{}) {
		t.Errorf("got %+v, want an empty page", page)
	}
	stop()
	wait.Until(t, "no finder is left", func() bool {
		w.tail.mu.Lock()
		defer w.tail.mu.Unlock()
		return len(w.tail.finders) == 0
	})
}
