package feed

import (
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/eventstore"
)

// month returns the middle of a past month, for which there is a partition then.
func month(t *testing.T, w *world, ago int) time.Time {
	t.Helper()
	now := time.Now().UTC()
	at := time.Date(now.Year(), now.Month()-time.Month(ago), 15, 0, 0, 0, 0, time.UTC)
	if err := eventstore.EnsurePartitions(t.Context(), w.pool, at); err != nil {
		t.Fatal(err)
	}
	return at
}

func expire(t *testing.T, w *world) {
	t.Helper()
	for {
		dropped, err := eventstore.DropExpired(t.Context(), w.pool, time.Now(), eventstore.MinRetention)
		if err != nil {
			t.Fatal(err)
		}
		if len(dropped.Months) == 0 {
			return
		}
	}
}

// TestRetention: partitions come and go while a reader follows the log. A cursor whose next
// entries were dropped is told the oldest there is; one that had read them is not, nor one
// that misses an entry that was dropped out of turn.
func TestRetention(t *testing.T) {
	t.Parallel()
	w := shared(t)
	start := must(w.Now(t.Context()))(t)
	first := add(t, w.pool, month(t, w, 5), 4)
	got, middle := readSome(t, w.Log, start, 2)
	rest, end := readSome(t, w.Log, middle, 2)
	wantOnce(t, append(got, rest...), first)
	recent := add(t, w.pool, time.Now(), 3)
	last := add(t, w.pool, time.Now(), 2)
	expire(t, w)
	for name, cursor := range map[string]Cursor{"the start": start, "the middle": middle} {
		var gone *GoneError
		_, err := w.Page(t.Context(), cursor, 10)
		if !errors.As(err, &gone) || !errors.Is(err, ErrGone) {
			t.Errorf("%s: got %v, want ErrGone", name, err)
			continue
		}
		ids, _ := drainUntil(t, w.Log, gone.Oldest, 5)
		wantOnce(t, ids, recent, last)
	}
	ids, _ := drainUntil(t, w.Log, end, 5)
	wantOnce(t, ids, recent, last)

	add(t, w.pool, month(t, w, 6), 1) // recorded late
	_, between := readSome(t, w.Log, end, 3)
	expire(t, w)
	ids, _ = drainUntil(t, w.Log, between, 2)
	wantOnce(t, ids, last)
	if oldest := must(w.Oldest(t.Context()))(t); oldest.compare(middle.position) <= 0 {
		t.Errorf("the oldest is %v, before %v, which is gone", oldest, middle)
	}

	// All partitions go, and new ones come.
	exec(t, w.pool, "DELETE FROM upcall.upload_events")
	next := add(t, w.pool, month(t, w, 5), 2)
	ids, _ = drainUntil(t, w.Log, must(w.Oldest(t.Context()))(t), 2)
	wantOnce(t, ids, next)
}

// TestNullsComeFirst: rows without a recorded_xid come first, by the time they were received,
// also where later ones stand between them; and they are dropped like others.
func TestNullsComeFirst(t *testing.T) {
	t.Parallel()
	w := shared(t)
	old := month(t, w, 5)
	var nulls [][]uuid.UUID
	for n := range 5 {
		nulls = append(nulls, add(t, w.pool, old.Add(time.Duration(n)*time.Hour), 3))
	}
	newer := add(t, w.pool, month(t, w, 1), 3)
	exec(t, w.pool, "UPDATE upcall.upload_events SET recorded_xid = NULL")
	exec(t, w.pool, "UPDATE upcall.feed_log SET null_until = (SELECT max(received_at) FROM upcall.upload_events)")
	late := add(t, w.pool, old.Add(90*time.Minute), 4) // among them, but recorded later
	oldest := must(w.Oldest(t.Context()))(t)
	got, _ := drainUntil(t, w.Log, oldest, 22)
	for i, ids := range append(nulls, newer) {
		wantOnce(t, got[3*i:3*i+3], ids)
	}
	wantOnce(t, got[18:], late)
	if lag := must(w.Lag(t.Context(), oldest))(t); lag.Events != 22 {
		t.Errorf("the oldest cursor is %+v behind, want 22 events", lag)
	}

	_, inside := readSome(t, w.Log, oldest, 4)
	expire(t, w)
	var gone *GoneError
	if _, err := w.Page(t.Context(), inside, 10); !errors.As(err, &gone) {
		t.Fatalf("got %v, want ErrGone", err)
	}
	got, _ = drainUntil(t, w.Log, gone.Oldest, 3)
	wantOnce(t, got, newer)
}

func TestSince(t *testing.T) {
	t.Parallel()
	w := shared(t)
	at := month(t, w, 1)
	early := add(t, w.pool, at, 3)
	middle := add(t, w.pool, at.Add(time.Hour), 3)
	late := add(t, w.pool, at.Add(-time.Hour), 2) // recorded after middle
	last := add(t, w.pool, time.Now(), 1)
	for name, test := range map[string]struct {
		since time.Time
		want  [][]uuid.UUID
	}{
		"before all": {at.Add(-2 * time.Hour), [][]uuid.UUID{early, middle, late, last}},
		"the middle": {at.Add(time.Minute), [][]uuid.UUID{middle, late, last}},
		"the last":   {at.Add(24 * time.Hour), [][]uuid.UUID{last}},
		"after all":  {time.Now().Add(time.Hour), nil},
	} {
		cursor := must(w.Since(t.Context(), test.since))(t)
		n := 0
		for _, ids := range test.want {
			n += len(ids)
		}
		got, _ := drainUntil(t, w.Log, cursor, n)
		t.Run(name, func(t *testing.T) { wantOnce(t, got, test.want...) })
	}
	exec(t, w.pool, "UPDATE upcall.upload_events SET recorded_xid = NULL")
	exec(t, w.pool, "UPDATE upcall.feed_log SET null_until = (SELECT max(received_at) FROM upcall.upload_events)")
	got, _ := drainUntil(t, w.Log, must(w.Since(t.Context(), at.Add(time.Minute)))(t), 4)
	wantOnce(t, got, middle, last)
}

// TestPartitionsComeAndGo: a reader at the head sees each event that is kept once, while months
// are made for late events, and dropped.
func TestPartitionsComeAndGo(t *testing.T) {
	t.Parallel()
	w := shared(t)
	start := must(w.Now(t.Context()))(t)
	all := [][]uuid.UUID{add(t, w.pool, time.Now(), 2)}
	first, after := readSome(t, w.Log, start, 2)
	const rounds, each = 6, 3
	type result struct {
		ids []uuid.UUID
		err error
	}
	read := make(chan result, 1)
	go func() {
		r := result{ids: first}
		kept := len(first)
		for kept < 2+rounds*each {
			var page Page
			if page, r.err = w.Next(t.Context(), after, 2); r.err != nil || t.Context().Err() != nil {
				break
			}
			for _, e := range page.Entries {
				if time.Since(e.Event.ReceivedAt) < 24*time.Hour {
					kept++
					r.ids = append(r.ids, e.Event.ID)
				}
			}
			after = page.Next
		}
		read <- r
	}()
	for n := range rounds {
		add(t, w.pool, month(t, w, 4+n%2), 2)
		all = append(all, add(t, w.pool, time.Now(), each))
		expire(t, w)
	}
	r := <-read
	if r.err != nil {
		t.Fatal(r.err)
	}
	wantOnce(t, r.ids, all...)
}
