package feed

import (
	"context"
	"testing"
	"time"

	"upcall/internal/dbtest"
	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/testing/pgbouncer"
	"upcall/internal/testing/toolchain"
	"upcall/internal/testing/wait"
)

// TestNothingIsToldBeforeItIsReplicated: without its synchronous standby, a row is visible whose
// commit was interrupted while it waited. It is not told until the standby has it.
func TestNothingIsToldBeforeItIsReplicated(t *testing.T) {
	t.Parallel()
	server := dbtest.NewServer(t)
	replicatedThrough(t, server.URL(), server.URL(), false)
}

// TestNoFindingIsToldBeforeItIsReplicated: the same with findings.
func TestNoFindingIsToldBeforeItIsReplicated(t *testing.T) {
	t.Parallel()
	server := dbtest.NewServer(t)
	replicatedThrough(t, server.URL(), server.URL(), true)
}

// TestNothingIsToldBeforeItIsReplicatedPooled: the same through a pooler that gives each transaction
// another session.
func TestNothingIsToldBeforeItIsReplicatedPooled(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "pgbouncer")
	server := dbtest.NewServer(t)
	replicatedThrough(t, server.URL(), pgbouncer.Start(t, server.URL(), "transaction"), false)
}

func replicatedThrough(t *testing.T, direct, url string, findings bool) {
	w := at(t, url)
	superuser := dbtest.Open(t, direct, eventstore.Open)
	start := must(w.Now(t.Context()))(t)
	write := func(int) { add(t, superuser, time.Now(), 1) }
	if findings {
		old := add(t, superuser, time.Now(), 100)
		_, start = readAllOf(t, w.Log, start, len(old), 1000)
		write = func(n int) { find(t, superuser, event.Gone, old[n]) }
	}
	exec(t, superuser, "ALTER SYSTEM SET synchronous_standby_names = 'missing'")
	exec(t, superuser, "SELECT pg_reload_conf()")
	// The setting applies once the checkpointer has read it. Then the commit waits, until it is
	// interrupted.
	const interrupt = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
	written := 0
	wait.Until(t, "a commit waits for the standby", func() bool {
		done := make(chan struct{})
		go func() { defer close(done); write(written) }()
		interrupted := 0
		wait.Until(t, "it ends", func() bool {
			interrupted += number(t, superuser, interrupt)
			select {
			case <-done:
				return true
			default:
				return false
			}
		})
		written++
		return interrupted > 0
	})
	table := "upload_events"
	if findings {
		table = "findings"
	}
	if n := number(t, superuser, "SELECT count(*) FROM upcall."+table); n != written {
		t.Fatalf("%d rows are visible, want %d", n, written)
	}

	pages := make(chan Page, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for {
			c, next, err := w.read(ctx, start, 10, all)
			if err == nil || ctx.Err() != nil {
				page, _ := w.page(c.rows, next, err)
				pages <- page
				return
			}
		}
	}()
	wait.Until(t, "the read waits for the standby", func() bool { return number(t, superuser, interrupt) > 0 })
	wait.Until(t, "it waits again", func() bool { return number(t, superuser, interrupt) > 0 })
	select {
	case page := <-pages:
		t.Fatalf("%d entries were told", len(page.Entries))
	default:
	}
	exec(t, superuser, "ALTER SYSTEM SET synchronous_standby_names = ''")
	exec(t, superuser, "SELECT pg_reload_conf()")
	if page := <-pages; len(page.Entries) != written {
		t.Errorf("%d entries were told, want %d", len(page.Entries), written)
	}
}

// TestThroughAPooler: all of the log works if each transaction has another session.
func TestThroughAPooler(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "pgbouncer")
	direct := dbtest.URL(t)
	w := at(t, pgbouncer.Start(t, direct, "transaction"))
	start := must(w.Oldest(t.Context()))(t)
	all := add(t, w.pool, time.Now(), 30)
	got, _ := drainUntil(t, w.Log, start, 30)
	wantOnce(t, got, all)
	got, end := readSome(t, w.Log, start, 30)
	wantOnce(t, got, all)
	addConsumer(t, w, "a", start)
	lease := acquire(t, w.process(t, "one", time.Minute), "a")["a"]
	if err := lease.Commit(t.Context(), end, nil); err != nil {
		t.Error(err)
	}
	if lag := must(w.Lag(t.Context(), lease.Cursor()))(t); lag.Events != 0 {
		t.Errorf("got %+v", lag)
	}
	must(w.Since(t.Context(), time.Now()))(t)
}
