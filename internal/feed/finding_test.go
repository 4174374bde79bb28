package feed

import (
	"encoding/json"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"upcall/internal/dbtest"
	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/testing/wait"
)

// find inserts findings about events, in one transaction, and returns their ids.
func find(t *testing.T, db database, kind event.Kind, events ...uuid.UUID) (ids []uuid.UUID) {
	t.Helper()
	for _, id := range events {
		ids = append(ids, event.FindingID(id, kind))
	}
	var n int
	err := db.QueryRow(t.Context(), `WITH new AS (
		INSERT INTO upcall.findings (id, event_received_at, event_id, kind, found, found_at)
		SELECT new.id, e.received_at, e.id, $3, jsonb_build_object('etag', 'of ' || e.id), e.received_at + interval '1 minute'
		FROM unnest($1::uuid[], $2::uuid[]) AS new (id, event_id) JOIN upcall.upload_events e ON e.id = event_id RETURNING 1
	) SELECT count(*) FROM new`, ids, events, string(kind)).Scan(&n)
	if err != nil || n != len(events) {
		t.Fatalf("%d findings were inserted, %v", n, err)
	}
	return ids
}

// everything is a function that Find wants entries by.
func everything(*Sight) bool { return true }

// readAllOf reads n entries of all kinds, some at a time, and checks that they are in order.
func readAllOf(t *testing.T, log *Log, after Cursor, n, limit int) (entries []Entry, end Cursor) {
	t.Helper()
	for len(entries) < n {
		var passed atomic.Pointer[Cursor]
		page, err := log.Find(t.Context(), after, limit, everything, &passed)
		if err != nil {
			t.Fatal(err)
		}
		entries, after = append(entries, page.Entries...), page.Next
	}
	if !slices.IsSortedFunc(entries, func(a, b Entry) int { return a.Cursor.compare(b.Cursor.position) }) {
		t.Error("entries are out of order")
	}
	return entries, after
}

func idsOf(entries []Entry) (ids []uuid.UUID) {
	for _, e := range entries {
		if e.Found != nil {
			ids = append(ids, e.Found.ID)
		} else {
			ids = append(ids, e.Event.ID)
		}
	}
	return ids
}

// TestFindingsAreInTheLog: who asks for findings gets them among events, each once, in pages of any
// size, at the head and behind it; who does not gets events alone.
func TestFindingsAreInTheLog(t *testing.T) {
	t.Parallel()
	w := shared(t)
	start := must(w.Now(t.Context()))(t)
	var events, findings []uuid.UUID
	grow := func() {
		new := add(t, w.pool, time.Now(), 6)
		events = append(events, new...)
		findings = append(findings, find(t, w.pool, event.Disputed, new[:2]...)...)
		findings = append(findings, find(t, w.pool, event.Gone, new[1], events[0])...)
		tx := begin(t, w.pool) // of one transaction
		new = add(t, tx, time.Now(), 3)
		findings = append(findings, find(t, tx, event.Disputed, new...)...)
		commit(t, tx)
		events = append(events, new...)
	}
	grow()
	findings = slices.Compact(findings)
	both := len(events) + len(findings)
	for _, limit := range []int{1, 2, 3, 5, 1000} {
		behind := w.another(t)
		got, end := readAllOf(t, behind, start, both, limit)
		wantOnce(t, idsOf(got), events, findings)
		recorded, at := readSome(t, w.another(t), start, len(events))
		wantOnce(t, recorded, events)
		if page := must(w.Page(t.Context(), end, 10))(t); len(page.Entries) > 0 || at.compare(end.position) > 0 {
			t.Errorf("%d entries follow the last at %v; events end at %v", len(page.Entries), end, at)
		}
	}
	got, end := readAllOf(t, w.Log, start, both, 1000)
	for _, e := range got {
		if e.Found == nil {
			if e.Kind != event.Recorded {
				t.Errorf("%v is of kind %s", e.Event.ID, e.Kind)
			}
			continue
		}
		var found struct{ ETag string }
		if err := json.Unmarshal(e.Found.Found, &found); err != nil || found.ETag != "of "+e.Event.ID.String() ||
			e.Found.ID != event.FindingID(e.Event.ID, e.Kind) || !e.Found.At.Equal(e.Event.ReceivedAt.Add(time.Minute)) {
			t.Errorf("got %s %s of %+v, %v", e.Kind, e.Found.Found, e.Event, err)
		}
	}

	// At the head: a reader of events sleeps through findings, one of findings gets them.
	for range 3 {
		pages := make(chan Page, 2)
		go func(after Cursor) {
			page, err := w.Next(t.Context(), after, 1000)
			if err != nil {
				t.Error(err)
			}
			pages <- page
		}(end)
		old := events[len(events)-1]
		finding := find(t, w.pool, event.Gone, old)
		one, found := readAllOf(t, w.Log, end, 1, 10)
		if diff := cmp.Diff(finding, idsOf(one)); diff != "" {
			t.Fatal(diff)
		}
		next := add(t, w.pool, time.Now(), 1)
		page := <-pages
		if len(page.Entries) != 1 || page.Entries[0].Event.ID != next[0] || page.Entries[0].Found != nil {
			t.Errorf("got %+v, want the next event", page.Entries)
		}
		events = append(events, next...)
		_, end = readAllOf(t, w.Log, found, 1, 10)
	}
}

// TestFindingsWait: a finding is told when no transaction that is open can have an entry before it.
func TestFindingsWait(t *testing.T) {
	t.Parallel()
	w := own(t)
	start := must(w.Now(t.Context()))(t)
	old := add(t, w.pool, time.Now(), 1)
	_, after := readAllOf(t, w.Log, start, 1, 10)
	tx := begin(t, w.pool)
	late := find(t, tx, event.Disputed, old...)
	early := find(t, w.pool, event.Gone, old...)
	sees := func() []uuid.UUID {
		c, _, err := w.read(t.Context(), after, 10, all)
		if err != nil {
			t.Fatal(err)
		}
		entries, err := w.decoder.entries(c.rows)
		if err != nil {
			t.Fatal(err)
		}
		return idsOf(entries)
	}
	if got := sees(); len(got) > 0 {
		t.Fatalf("got %v before an older transaction has ended", got)
	}
	lag := must(w.LagOfAll(t.Context(), after))(t)
	if events := must(w.Lag(t.Context(), after))(t); lag.Events != 1 || events.Events != 0 {
		t.Errorf("%d entries are to come, %d of them events; want 1 and 0", lag.Events, events.Events)
	}
	commit(t, tx)
	wait.Until(t, "both can be read", func() bool { return slices.Equal(sees(), append(late, early...)) })
}

// TestFullPagesOfBoth: a page that is cut, by its length or its size, on either side or both, is
// continued with the first entry that it lacks.
func TestFullPagesOfBoth(t *testing.T) {
	t.Parallel()
	w := shared(t)
	exec(t, w.pool, "ALTER TABLE upcall.upload_events ALTER COLUMN vars SET STORAGE EXTERNAL")
	large := func(ids []uuid.UUID) {
		exec(t, w.pool, `UPDATE upcall.upload_events SET vars = jsonb_build_object('large', repeat('x', 700000)) WHERE id = ANY ($1)`, ids)
	}
	start := must(w.Now(t.Context()))(t)
	few := add(t, w.pool, time.Now(), 30)
	findings := find(t, w.pool, event.Gone, few...) // more of them than fit, at the end
	more := add(t, w.pool, time.Now(), 5)
	findings = append(findings, find(t, w.pool, event.Disputed, few[:10]...)...)
	big := add(t, w.pool, time.Now(), 20)
	large(big) // seven fill a page
	findings = append(findings, find(t, w.pool, event.Disputed, big...)...)
	last := add(t, w.pool, time.Now(), 2)
	findings = append(findings, find(t, w.pool, event.Gone, last...)...)
	count := len(few) + len(more) + len(big) + len(last) + len(findings)
	for _, limit := range []int{1, 7, 25, 1000} {
		got, _ := readAllOf(t, w.another(t), start, count, limit)
		wantOnce(t, idsOf(got), few, more, big, last, findings)
		for _, e := range got {
			if (e.Event.Callback.Vars["large"] != nil) != slices.Contains(big, e.Event.ID) {
				t.Errorf("entry of %s has the event %s", e.Cursor.id, e.Event.ID)
			}
		}
	}
}

// TestFindingsOfDroppedEvents are left out, however many pages they fill.
func TestFindingsOfDroppedEvents(t *testing.T) {
	t.Parallel()
	w := shared(t)
	start := must(w.Now(t.Context()))(t)
	events := add(t, w.pool, time.Now(), 50)
	find(t, w.pool, event.Gone, events...)
	kept := add(t, w.pool, time.Now(), 3)
	findings := find(t, w.pool, event.Gone, kept...)
	exec(t, w.pool, "DELETE FROM upcall.upload_events WHERE id = ANY ($1)", events)
	for _, limit := range []int{1, 20, 1000} {
		after := start
		var got []Entry
		wait.Until(t, "all can be read", func() bool {
			c, next, err := w.read(t.Context(), after, limit, all)
			if err != nil && !strings.Contains(err.Error(), "again and again") {
				t.Fatal(err)
			}
			entries, err := w.decoder.entries(c.rows)
			if err != nil {
				t.Fatal(err)
			}
			got, after = append(got, entries...), next
			return len(got) == 6
		})
		wantOnce(t, idsOf(got), kept, findings)
	}
	got, _ := readAllOf(t, w.Log, start, 6, 1000)
	wantOnce(t, idsOf(got), kept, findings)
}

// TestFindingsAreRestored: those of a dump are told again, after the events.
func TestFindingsAreRestored(t *testing.T) {
	t.Parallel()
	w := shared(t)
	start := must(w.Now(t.Context()))(t)
	old := add(t, w.pool, time.Now(), 5)
	findings := find(t, w.pool, event.Gone, old...)
	_, end := readAllOf(t, w.Log, start, 10, 1000)
	// Only findings are ahead of the cluster.
	exec(t, w.pool, "UPDATE upcall.findings SET recorded_xid = '1000000000000'")
	exec(t, w.pool, "INSERT INTO upcall.feed_timelines VALUES (42, 1, '2026-01-01', '3', '5')")
	w.forget(w.history.Load())
	if _, err := w.Now(t.Context()); err == nil || !strings.Contains(err.Error(), ErrRestored.Error()) {
		t.Fatalf("got %v, want ErrRestored", err)
	}
	for range 2 {
		if _, err := Repair(t.Context(), dbtest.Open(t, w.url, eventstore.OpenFeed), func(int) {}); err != nil {
			t.Fatal(err)
		}
	}
	// What follows the log may have failed during the repair, and its error is kept for a moment.
	wait.Until(t, "the log is read again", func() bool { return w.tail.recent(time.Now()) == nil })
	got, last := readAllOf(t, w.Log, end, 5, 1000)
	wantOnce(t, idsOf(got), findings)
	if _, err := Repair(t.Context(), dbtest.Open(t, w.url, eventstore.OpenFeed), func(int) {}); err != nil {
		t.Fatal(err)
	}
	if c, _, err := w.read(t.Context(), last, 10, all); err != nil || len(c.rows) > 0 {
		t.Errorf("%d are read again, %v", len(c.rows), err)
	}
}

// TestManyFindings: a page from the middle of many findings takes few buffers.
func TestManyFindings(t *testing.T) {
	t.Parallel()
	w := shared(t)
	start := must(w.Now(t.Context()))(t)
	exec(t, w.pool, `INSERT INTO upcall.findings (id, event_received_at, event_id, kind, found, found_at)
		SELECT gen_random_uuid(), now(), gen_random_uuid(), 'gone', '{}', now() FROM generate_series(1, 50000)`)
	var xid uint64
	if err := w.pool.QueryRow(t.Context(), "SELECT recorded_xid FROM upcall.findings LIMIT 1").Scan(&xid); err != nil {
		t.Fatal(err)
	}
	first, middle := buffers(t, w, start.position), buffers(t, w, position{xid: xid, id: uuid.UUID{0x80}})
	if middle > 400 || middle > 2*first {
		t.Errorf("a page from the middle took %d buffers, the first %d", middle, first)
	}
}
