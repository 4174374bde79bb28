package feed

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/testing/wait"
)

// process returns what a receiver has, without renewal.
func (w *world) process(t *testing.T, holder string, lease time.Duration) *Consumers {
	t.Helper()
	c, err := NewConsumers(ConsumersConfig{Pool: dbtest.Open(t, w.url, eventstore.OpenFeed), Holder: holder, Lease: lease})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// renewing runs the renewal of leases until stop is called.
func renewing(t *testing.T, c *Consumers) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { c.Run(ctx); close(done) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

func inTx(t *testing.T, w *world, work func(tx pgx.Tx) error) error {
	t.Helper()
	return pgx.BeginFunc(t.Context(), w.pool, work)
}

func addConsumer(t *testing.T, w *world, name string, at Cursor) {
	t.Helper()
	if err := inTx(t, w, func(tx pgx.Tx) error { return AddConsumer(t.Context(), tx, name, at) }); err != nil {
		t.Fatal(err)
	}
}

func acquire(t *testing.T, c *Consumers, names ...string) map[string]*Lease {
	t.Helper()
	leases, err := c.Acquire(t.Context(), names)
	if err != nil {
		t.Fatal(err)
	}
	byName := make(map[string]*Lease)
	for _, l := range leases {
		byName[l.Name()] = l
	}
	return byName
}

func TestConsumers(t *testing.T) {
	t.Parallel()
	w := shared(t)
	start := must(w.Now(t.Context()))(t)
	addConsumer(t, w, "b", start)
	addConsumer(t, w, "a", start)
	null := start.cluster().at(position{at: time.Now().UnixMicro()})
	if err := inTx(t, w, func(tx pgx.Tx) error { return AddConsumer(t.Context(), tx, "a", start) }); !errors.Is(err, ErrExists) {
		t.Errorf("got %v, want ErrExists", err)
	}
	for name, work := range map[string]func(tx pgx.Tx) error{
		"remove": func(tx pgx.Tx) error { return RemoveConsumer(t.Context(), tx, "c") },
		"move":   func(tx pgx.Tx) error { return MoveConsumer(t.Context(), tx, "c", start) },
	} {
		if err := inTx(t, w, work); !errors.Is(err, ErrNoConsumer) {
			t.Errorf("%s: got %v, want ErrNoConsumer", name, err)
		}
	}
	if err := inTx(t, w, func(tx pgx.Tx) error { return MoveConsumer(t.Context(), tx, "b", null) }); err != nil {
		t.Fatal(err)
	}
	list := must(ListConsumers(t.Context(), w.config.Pool))(t)
	if len(list) != 2 || list[0].Name != "a" || list[0].Cursor != start || list[1].Cursor != null || list[0].Holder != "" ||
		list[0].UpdatedAt.IsZero() {
		t.Errorf("got %+v", list)
	}

	one, other := w.process(t, "one", time.Minute), w.process(t, "other", time.Minute)
	leases := acquire(t, one, "a", "no such")
	if len(leases) != 1 || leases["a"].Cursor() != start || leases["a"].Context().Err() != nil {
		t.Fatalf("got %v", leases)
	}
	if again := acquire(t, one, "a"); len(again) != 0 {
		t.Error("a lease was given twice")
	}
	if theirs := acquire(t, other, "a", "b"); len(theirs) != 1 || theirs["b"].Cursor() != null {
		t.Errorf("another process got %v, want b only", theirs)
	}
	if list = must(ListConsumers(t.Context(), w.config.Pool))(t); list[0].Holder != "one" || list[0].Until.Before(time.Now()) {
		t.Errorf("got %+v", list[0])
	}
	if err := leases["a"].Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if leases["a"].Context().Err() == nil {
		t.Error("the lease did not end with its release")
	}
	if theirs := acquire(t, other, "a"); len(theirs) != 1 {
		t.Error("a lease that was released is not free")
	}
}

// TestCommit: the cursor and the work are committed together, or neither.
func TestCommit(t *testing.T) {
	t.Parallel()
	w := shared(t)
	exec(t, w.pool, "CREATE TABLE work (n int)")
	done := func() int { return number(t, w.pool, "SELECT count(*) FROM work") }
	start := must(w.Now(t.Context()))(t)
	addConsumer(t, w, "a", start)
	add(t, w.pool, time.Now(), 3)
	_, second := readSome(t, w.Log, start, 2)
	_, third := readSome(t, w.Log, second, 1)
	one := w.process(t, "one", time.Minute)
	lease := acquire(t, one, "a")["a"]
	work := func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), "INSERT INTO work VALUES (1)")
		return err
	}
	if err := lease.Commit(t.Context(), second, work); err != nil || lease.Cursor() != second || done() != 1 {
		t.Fatalf("got %v at %v, %d done", err, lease.Cursor(), done())
	}
	errWork := errors.New("it does not work")
	err := lease.Commit(t.Context(), third, func(tx pgx.Tx) error { return errors.Join(work(tx), errWork) })
	if !errors.Is(err, errWork) || lease.Cursor() != second || lease.Context().Err() != nil || done() != 1 {
		t.Errorf("got %v at %v, %d done; want the work's own error, and the lease", err, lease.Cursor(), done())
	}
	if err := lease.Commit(t.Context(), third, nil); err != nil {
		t.Fatal(err)
	}
	if list := must(ListConsumers(t.Context(), w.config.Pool))(t); list[0].Cursor != third {
		t.Errorf("got %+v, want the third entry", list[0])
	}

	// Someone sets the cursor back: the holder learns of it before it does anything.
	if err := inTx(t, w, func(tx pgx.Tx) error { return MoveConsumer(t.Context(), tx, "a", start) }); err != nil {
		t.Fatal(err)
	}
	if err := lease.Commit(t.Context(), third, work); !errors.Is(err, ErrLost) || done() != 1 || lease.Context().Err() == nil {
		t.Errorf("got %v, %d done; want ErrLost, and the end of the lease", err, done())
	}
	if lease = acquire(t, one, "a")["a"]; lease == nil || lease.Cursor() != start {
		t.Fatalf("got %v, want a lease at the start", lease)
	}
	if err := inTx(t, w, func(tx pgx.Tx) error { return RemoveConsumer(t.Context(), tx, "a") }); err != nil {
		t.Fatal(err)
	}
	if err := lease.Commit(t.Context(), third, nil); !errors.Is(err, ErrLost) {
		t.Errorf("got %v, want ErrLost of a consumer that was removed", err)
	}
}

// TestLeaseIsTakenOver: a process that is killed, or stalls, loses its lease to another one, and
// what it still does afterwards changes nothing.
func TestLeaseIsTakenOver(t *testing.T) {
	t.Parallel()
	w := shared(t)
	start := must(w.Now(t.Context()))(t)
	addConsumer(t, w, "a", start)
	add(t, w.pool, time.Now(), 2)
	_, first := readSome(t, w.Log, start, 1)
	_, second := readSome(t, w.Log, first, 1)
	killed, heir := w.process(t, "killed", 300*time.Millisecond), w.process(t, "heir", time.Minute)
	lease := acquire(t, killed, "a")["a"]
	if taken := acquire(t, heir, "a"); len(taken) > 0 {
		t.Fatal("the lease was taken while it held")
	}
	var taken *Lease
	wait.Until(t, "another takes over", func() bool { taken = acquire(t, heir, "a")["a"]; return taken != nil })
	select {
	case <-lease.Context().Done():
	case <-time.After(time.Minute):
		t.Error("the stalled process does not notice")
	}
	if cause := context.Cause(lease.Context()); !errors.Is(cause, ErrLost) {
		t.Errorf("the lease ended because of %v, want ErrLost", cause)
	}
	// It commits all the same, before and after the heir has done anything.
	if err := lease.Commit(t.Context(), second, nil); !errors.Is(err, ErrLost) {
		t.Errorf("got %v, want ErrLost", err)
	}
	if err := taken.Commit(t.Context(), first, nil); err != nil {
		t.Fatal(err)
	}
	if err := lease.Commit(t.Context(), second, nil); !errors.Is(err, ErrLost) {
		t.Errorf("got %v, want ErrLost", err)
	}
	if list := must(ListConsumers(t.Context(), w.config.Pool))(t); list[0].Cursor != first || list[0].Holder != "heir" {
		t.Errorf("got %+v", list[0])
	}
}

// TestLeasesAreRenewed: leases outlive their time while the process runs, but for those that
// were taken away, and are free at once when it ends.
func TestLeasesAreRenewed(t *testing.T) {
	t.Parallel()
	w := shared(t)
	start := must(w.Now(t.Context()))(t)
	addConsumer(t, w, "a", start)
	addConsumer(t, w, "b", start)
	one, other := w.process(t, "one", 900*time.Millisecond), w.process(t, "other", time.Minute)
	stop := renewing(t, one)
	leases := acquire(t, one, "a", "b")
	until := must(ListConsumers(t.Context(), w.config.Pool))(t)[0].Until
	wait.Until(t, "the lease is renewed thrice", func() bool {
		return must(ListConsumers(t.Context(), w.config.Pool))(t)[0].Until.Sub(until) > 900*time.Millisecond
	})
	if leases["a"].Context().Err() != nil || len(acquire(t, other, "a")) > 0 {
		t.Error("the lease ended while it was renewed")
	}
	exec(t, w.pool, "UPDATE upcall.feed_consumers SET lease_holder = 'thief' WHERE name = 'b'")
	select {
	case <-leases["b"].Context().Done():
	case <-time.After(time.Minute):
		t.Error("a lease that was taken away does not end")
	}
	if leases["a"].Context().Err() != nil {
		t.Error("the other lease ended, too")
	}
	stop()
	if leases["a"].Context().Err() == nil || len(acquire(t, other, "a")) != 1 {
		t.Error("the lease is not free when its process has ended")
	}
}

// TestCommitIsUncertain: if the connection breaks in a commit, the lease ends, and the next one
// begins where the database says.
func TestCommitIsUncertain(t *testing.T) {
	t.Parallel()
	w := shared(t)
	start := must(w.Now(t.Context()))(t)
	addConsumer(t, w, "a", start)
	add(t, w.pool, time.Now(), 1)
	_, end := readSome(t, w.Log, start, 1)
	one := w.process(t, "one", time.Minute)
	lease := acquire(t, one, "a")["a"]
	err := lease.Commit(t.Context(), end, func(tx pgx.Tx) error { return tx.Conn().Close(t.Context()) })
	if err == nil || lease.Context().Err() == nil {
		t.Errorf("got %v, and the lease goes on", err)
	}
	if lease = acquire(t, one, "a")["a"]; lease == nil || lease.Cursor() != start {
		t.Errorf("got %v, want a lease at the start", lease)
	}
}
