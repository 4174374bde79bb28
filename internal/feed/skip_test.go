package feed

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"upcall/internal/testing/wait"
)

// TestSkip: the cursors of many consumers are moved by one statement, from both parts of the log,
// and one that was moved by others, or is another's, is not.
func TestSkip(t *testing.T) {
	t.Parallel()
	w := shared(t)
	start := must(w.Now(t.Context()))(t)
	null := start.cluster().at(position{at: time.Now().UnixMicro()})
	for _, name := range []string{"busy", "commits", "moved", "nulls", "plain", "rests", "taken"} {
		at := start
		if name == "nulls" {
			at = null
		}
		addConsumer(t, w, name, at)
	}
	add(t, w.pool, time.Now(), 2)
	_, first := readSome(t, w.Log, start, 1)
	_, second := readSome(t, w.Log, first, 1)
	one := w.process(t, "one", time.Minute)
	leases := acquire(t, one, "busy", "commits", "moved", "nulls", "plain", "rests", "taken")
	for name, l := range leases {
		if name != "rests" {
			l.Skip(first)
		}
	}
	if err := leases["commits"].Commit(t.Context(), second, nil); err != nil { // a skip before it must not set it back
		t.Fatal(err)
	}
	if err := inTx(t, w, func(tx pgx.Tx) error { return MoveConsumer(t.Context(), tx, "moved", second) }); err != nil {
		t.Fatal(err)
	}
	exec(t, w.pool, "UPDATE upcall.feed_consumers SET lease_holder = 'other' WHERE name = 'taken'")
	leases["busy"].moving.Lock() // as during a commit
	if err := one.skip(t.Context()); err != nil {
		t.Fatal(err)
	}
	leases["busy"].moving.Unlock()

	want := map[string]Cursor{
		"busy": start, "commits": second, "moved": second, "nulls": first, "plain": first, "rests": start, "taken": start,
	}
	changes := make(map[time.Time]int)
	for _, c := range must(ListConsumers(t.Context(), w.config.Pool))(t) {
		if c.Cursor != want[c.Name] {
			t.Errorf("%s is at %+v, want %+v", c.Name, c.Cursor, want[c.Name])
		}
		changes[c.UpdatedAt]++
		lost := leases[c.Name].Context().Err() != nil
		if wantLost := c.Name == "moved" || c.Name == "taken"; lost != wantLost {
			t.Errorf("%s: the lease is lost: %v, want %v", c.Name, lost, wantLost)
		}
		if !lost && leases[c.Name].Cursor() != want[c.Name] {
			t.Errorf("%s: the lease is at %+v, want %+v", c.Name, leases[c.Name].Cursor(), want[c.Name])
		}
	}
	if err := leases["plain"].Commit(t.Context(), second, nil); err != nil { // from where the skip has set it
		t.Error(err)
	}
	together := 0
	for _, n := range changes {
		together = max(together, n)
	}
	if together < 2 { // the time is that of the transaction
		t.Error("the cursors were moved in transactions of their own")
	}

	// What was left out is written the next time.
	leases["busy"].Skip(second)
	if err := one.skip(t.Context()); err != nil || leases["busy"].Cursor() != second {
		t.Errorf("got %v at %+v", err, leases["busy"].Cursor())
	}
}

// TestSkipFails: nothing is moved without PostgreSQL, and a connection that breaks ends the leases,
// because what was committed is not known.
func TestSkipFails(t *testing.T) {
	t.Parallel()
	w := shared(t)
	start := must(w.Now(t.Context()))(t)
	addConsumer(t, w, "a", start)
	add(t, w.pool, time.Now(), 1)
	_, end := readSome(t, w.Log, start, 1)
	one := w.process(t, "one", time.Minute)
	lease := acquire(t, one, "a")["a"]
	lease.Skip(end)
	exec(t, w.pool, "ALTER TABLE upcall.feed_consumers ADD CONSTRAINT stays CHECK (timeline < 0) NOT VALID")
	if err := one.skip(t.Context()); err == nil || lease.Context().Err() != nil || lease.Cursor() != start {
		t.Errorf("got %v, at %+v; want an error and the lease", err, lease.Cursor())
	}
	exec(t, w.pool, "ALTER TABLE upcall.feed_consumers DROP CONSTRAINT stays")
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	if err := one.skip(stopped); err == nil || !errors.Is(context.Cause(lease.Context()), ErrLost) {
		t.Errorf("got %v, and the lease ended because of %v; want an error and ErrLost", err, context.Cause(lease.Context()))
	}
}

// TestSkipsAreWritten: soon after the last, and while more come.
func TestSkipsAreWritten(t *testing.T) {
	t.Parallel()
	w := shared(t)
	start := must(w.Now(t.Context()))(t)
	addConsumer(t, w, "a", start)
	add(t, w.pool, time.Now(), 1)
	_, end := readSome(t, w.Log, start, 1)
	one := w.process(t, "one", time.Minute)
	lease := acquire(t, one, "a")["a"]
	now := time.Now()
	if one.mustSkip(now.Add(time.Hour)) {
		t.Error("there is nothing to skip")
	}
	lease.Skip(end)
	one.mu.Lock()
	one.skipped, one.skippedLast = now, now.Add(skipAfter-skipQuiet/2) // others have come since
	one.mu.Unlock()
	for after, want := range map[time.Duration]bool{skipAfter - time.Millisecond: false, skipAfter: true} {
		if got := one.mustSkip(now.Add(after)); got != want {
			t.Errorf("%v after the first skip: %v, want %v", after, got, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { one.Run(ctx); close(ended) }()
	wait.Until(t, "the cursor has moved", func() bool { return lease.Cursor() == end })
	cancel()
	<-ended
}
