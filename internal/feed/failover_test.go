package feed

import (
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/testing/wait"
)

// TestPromotedStandbyIsBehindACursor: a standby is promoted that lacks what a client has read.
// Its transactions get the numbers that the client has seen, and the client misses nothing.
func TestPromotedStandbyIsBehindACursor(t *testing.T) {
	t.Parallel()
	primary := dbtest.NewServer(t)
	w := at(t, primary.URL())
	standby := dbtest.NewStandby(t, primary.URL())
	start := must(w.Now(t.Context()))(t)
	kept := add(t, w.pool, time.Now(), 5)
	_, middle := drainUntil(t, w.Log, start, 5)
	mark(t, w)
	follows(t, w, standby)

	// The standby gets no more.
	follower := dbtest.Open(t, standby.URL(), eventstore.Open)
	exec(t, follower, "ALTER SYSTEM SET primary_conninfo = ''")
	exec(t, follower, "SELECT pg_reload_conf()")
	wait.Until(t, "the standby has left", func() bool { return number(t, w.pool, "SELECT count(*) FROM pg_stat_replication") == 0 })
	for range 50 {
		add(t, w.pool, time.Now(), 1)
	}
	_, ahead := drainUntil(t, w.Log, middle, 50)
	primary.Kill(t)
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}

	after := at(t, standby.URL())
	var fresh = add(t, after.pool, time.Now(), 3)
	fresh = append(fresh, add(t, after.pool, time.Now(), 3)...)
	burn(t, after.pool, 200) // past the cursor, so that only its timeline tells
	got, end := drainUntil(t, after.Log, ahead, 6)
	if end.timeline != ahead.timeline+1 || end.system != ahead.system {
		t.Errorf("the cursor was %+v, and is %+v; want the next timeline", ahead, end)
	}
	if last := number(t, after.pool, "SELECT max(recorded_xid::text::bigint) FROM upcall.upload_events"); uint64(last) >= ahead.xid {
		t.Errorf("the last entry is at %d, after the cursor at %d: this tests nothing", last, ahead.xid)
	}
	wantOnce(t, got, fresh)
	// One who had not read them reads everything once.
	got, _ = drainUntil(t, after.Log, start, 11)
	wantOnce(t, got, kept, fresh)
	// And the head is read on.
	next := add(t, after.pool, time.Now(), 1)
	page := must(after.Next(t.Context(), end, 10))(t)
	if len(page.Entries) != 1 || page.Entries[0].Event.ID != next[0] {
		t.Errorf("got %v", page)
	}
}

// mark waits until the cursors that were handed out are marked, which is done once a second.
func mark(t *testing.T, w *world) {
	t.Helper()
	wait.Until(t, "the cursors are marked", func() bool { return w.marked.Load() >= w.handed.Load() })
}

// follows waits until the standby has what the primary has.
func follows(t *testing.T, w *world, standby *dbtest.Server) {
	t.Helper()
	var position string
	if err := w.pool.QueryRow(t.Context(), "SELECT pg_current_wal_insert_lsn()::text").Scan(&position); err != nil {
		t.Fatal(err)
	}
	pool := dbtest.Open(t, standby.URL(), eventstore.Open)
	wait.Until(t, "the standby follows", func() bool {
		var there bool
		if err := pool.QueryRow(t.Context(), "SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn", position).Scan(&there); err != nil {
			t.Fatal(err)
		}
		return there
	})
}

// TestMarkIsAboveTransaction: a mark that was made while a transaction was open does not count for cursors
// within that transaction. After a failover, all of its entries would come again.
func TestMarkIsAboveTransaction(t *testing.T) {
	t.Parallel()
	w := at(t, dbtest.NewServer(t).URL())
	tx := begin(t, w.pool)
	ids := add(t, tx, time.Now(), 5)
	start := must(w.Now(t.Context()))(t)
	mark(t, w)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	readSome(t, w.Log, start, len(ids))
	mark(t, w)
	var above bool
	const query = "SELECT read_until > ALL (SELECT recorded_xid FROM upcall.upload_events WHERE id = ANY ($1)) FROM upcall.feed_timelines"
	if err := w.pool.QueryRow(t.Context(), query, ids).Scan(&above); err != nil {
		t.Fatal(err)
	}
	if !above {
		t.Error("after a failover, readers would get what they have read once more")
	}
}

// TestFailoverUnderAReader: a reader that waits at the head of a primary that is lost goes on
// with the standby, with the same log.
func TestFailoverUnderAReader(t *testing.T) {
	t.Parallel()
	primary := dbtest.NewServer(t)
	standby := dbtest.NewStandby(t, primary.URL())
	both, err := url.Parse(primary.URL())
	if err != nil {
		t.Fatal(err)
	}
	both.Host += fmt.Sprintf(",127.0.0.1:%d", standby.Port())
	query := both.Query()
	query.Set("target_session_attrs", "read-write")
	both.RawQuery = query.Encode()
	w := at(t, both.String())
	start := must(w.Now(t.Context()))(t)
	kept := add(t, w.pool, time.Now(), 5)
	_, cursor := readSome(t, w.Log, start, 5)
	mark(t, w)
	follows(t, w, standby)

	type result struct {
		ids []uuid.UUID
		end Cursor
	}
	read := make(chan result, 1)
	go func() {
		var r result
		for r.end = cursor; len(r.ids) == 0 && t.Context().Err() == nil; {
			page, err := w.Next(t.Context(), r.end, 10)
			if err != nil {
				continue // PostgreSQL is away
			}
			for _, e := range page.Entries {
				r.ids = append(r.ids, e.Event.ID)
			}
			r.end = page.Next
		}
		read <- r
	}()
	wait.Until(t, "the reader waits", func() bool {
		w.tail.mu.Lock()
		defer w.tail.mu.Unlock()
		return w.tail.waiting > 0
	})
	primary.Kill(t)
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	after := dbtest.Open(t, standby.URL(), eventstore.Open)
	fresh := add(t, after, time.Now(), 1)
	r := <-read
	wantOnce(t, r.ids, fresh)
	if r.end.timeline != cursor.timeline+1 {
		t.Errorf("the cursor is of timeline %d, after %d", r.end.timeline, cursor.timeline)
	}
	got, _ := drainUntil(t, w.Log, start, 6)
	wantOnce(t, got, kept, fresh)
}
