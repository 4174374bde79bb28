package eventstore

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/dbtest"
	"upcall/internal/event"
	"upcall/internal/testing/toolchain"
	"upcall/internal/testing/wait"
	"upcall/migrations"
)

// TestWaitingFails: no receiver ends because PostgreSQL does.
func TestWaitingFails(t *testing.T) {
	t.Parallel()
	pool := dbtest.Open(t, dbtest.URL(t), Open)
	if _, err := pool.Exec(t.Context(), "DROP SCHEMA upcall CASCADE"); err != nil {
		t.Fatal(err)
	}
	if n, _, err := Waiting(t.Context(), pool, 1); err == nil {
		t.Error(n, err)
	}
}

// TestMonthFails: a statement that fails after it was prepared is an error, and no panic.
func TestMonthFails(t *testing.T) {
	t.Parallel()
	pool := dbtest.Open(t, dbtest.URL(t), Open)
	if err := EnsurePartitions(t.Context(), pool, time.Now()); err != nil {
		t.Fatal(err)
	}
	pages := NewPages(pool)
	if id, err := pages.Month(t.Context(), time.Now()); err != nil || id == 0 {
		t.Fatal(id, err)
	}
	if _, err := pool.Exec(t.Context(), "DROP SCHEMA upcall CASCADE"); err != nil {
		t.Fatal(err)
	}
	if id, err := pages.Month(t.Context(), time.Now()); err == nil || migrations.ServerError(err).Code != "3F000" {
		t.Error(id, err)
	}
}

// TestPagesAreReplicated: an event whose own commit was cut off while it waited for the standby is visible, but not
// exported before the standby has it.
func TestPagesAreReplicated(t *testing.T) {
	t.Parallel()
	server := dbtest.NewServer(t)
	pair := newPair(t, server.URL())
	span := Span{Since: at.AddDate(0, 0, -1), Until: at.AddDate(0, 0, 1)}
	if err := EnsurePartitions(t.Context(), pair.pool, at); err != nil {
		t.Fatal(err)
	}
	pages := NewPages(dbtest.Open(t, server.URL(), OpenPages))
	pages.pause = time.Millisecond
	pair.standby(t, "nobody")
	committed := make(chan error, 1)
	go func() {
		_, err := pair.pool.Exec(context.Background(), "INSERT INTO upcall.upload_events (id, received_at, source) VALUES ($1, $2, 'callback')",
			uuid.New(), at)
		committed <- err
	}()
	wait.Until(t, "the commit was cut off", func() bool { pair.waiters(t, true); return len(committed) > 0 })
	if err := <-committed; err != nil {
		t.Fatal(err)
	}
	type read struct {
		events []*event.Event
		err    error
	}
	done := make(chan read, 1)
	go func() {
		events, err := pages.Next(context.Background(), span, Place{}, 10)
		done <- read{events, err}
	}()
	for _, again := range []bool{true, false} { // it reads again if its own wait is cut off
		wait.Until(t, "the page waits for the standby", func() bool { return len(done) > 0 || pair.waiters(t, false) > 0 })
		if len(done) > 0 {
			t.Fatalf("a page was read that is not replicated: %+v", <-done)
		}
		if again {
			pair.waiters(t, true)
		}
	}
	pair.standby(t, "")
	if got := <-done; got.err != nil || len(got.events) != 1 {
		t.Errorf("with the standby: %+v", got)
	}
}

// TestPagesOfAReplica: a replica that has its primary's settings can be read from, although it cannot write a barrier.
func TestPagesOfAReplica(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "standby")
	server := dbtest.NewServer(t)
	pool := dbtest.Open(t, server.URL(), Open)
	if err := EnsurePartitions(t.Context(), pool, at); err != nil {
		t.Fatal(err)
	}
	execute(t, pool, "INSERT INTO upcall.upload_events (id, received_at, source) VALUES (gen_random_uuid(), '"+
		at.Format(time.RFC3339)+"', 'callback')")
	execute(t, pool, "ALTER SYSTEM SET synchronous_standby_names = '*'") // which a copy has, too
	replica := dbtest.NewStandby(t, server.URL())
	reader := dbtest.Open(t, replica.URL(), OpenPages)
	if names := lines(t, reader, "SHOW synchronous_standby_names")[0]; names != "*" {
		t.Fatalf("the replica has synchronous_standby_names = %q", names)
	}
	events, err := NewPages(reader).Next(t.Context(), Span{Since: at.AddDate(0, 0, -1), Until: at.AddDate(0, 0, 1)}, Place{}, 10)
	if err != nil || len(events) != 1 {
		t.Errorf("%d events, %v", len(events), err)
	}
}
