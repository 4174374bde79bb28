package feed

import (
	"context"
	"errors"
	command "os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/testing/logtest"
	"upcall/internal/testing/wait"
)

// burn lets the cluster assign so many transaction numbers.
func burn(t *testing.T, pool *pgxpool.Pool, n int) {
	t.Helper()
	exec(t, pool, `CREATE OR REPLACE PROCEDURE burn(n int) LANGUAGE plpgsql AS $$
		BEGIN FOR i IN 1..n LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$`)
	exec(t, pool, "CALL burn($1)", n)
}

// restore makes the schema of the world a dump's, in another cluster.
func restore(t *testing.T, w *world) (url string) {
	t.Helper()
	url = dbtest.NewServer(t).URL()
	dbtest.Execute(t, url, "DROP SCHEMA upcall CASCADE")
	dump := command.Command("pg_dump", "--dbname", w.url, "--schema", "upcall")
	load := command.Command("psql", "--quiet", "--no-psqlrc", "--output", "/dev/null", "--set", "ON_ERROR_STOP=1", "--dbname", url)
	pipe, err := dump.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	load.Stdin = pipe
	if err := dump.Start(); err != nil {
		t.Fatal(err)
	}
	if output, err := load.CombinedOutput(); err != nil {
		t.Fatalf("restore: %v: %s", err, output)
	}
	if err := dump.Wait(); err != nil {
		t.Fatal(err)
	}
	return url
}

// TestDumpIsRestored: the events of a dump are numbered ahead of the new cluster, which is
// noticed at the start. After the repair, clients with old cursors miss nothing, whether they
// had read all or little, and those that start anew see everything once.
func TestDumpIsRestored(t *testing.T) {
	t.Parallel()
	old := own(t)
	burn(t, old.pool, 5000)
	start := must(old.Now(t.Context()))(t)
	var all []uuid.UUID
	for range 40 {
		all = append(all, add(t, old.pool, time.Now(), 60)...)
	}
	read, early := readSome(t, old.Log, start, 100)
	_, end := drainUntil(t, old.Log, start, len(all))
	mark(t, old)

	w := at(t, restore(t, old))
	unread := add(t, w.pool, time.Now(), 7) // the recorder does not wait for the repair
	for name, ask := range map[string]func() error{
		"Page":   func() error { _, err := w.Page(t.Context(), end, 10); return err },
		"Next":   func() error { _, err := w.Next(t.Context(), end, 10); return err },
		"Now":    func() error { _, err := w.Now(t.Context()); return err },
		"Oldest": func() error { _, err := w.Oldest(t.Context()); return err },
	} {
		if err := ask(); !errors.Is(err, ErrRestored) {
			t.Errorf("%s: got %v, want ErrRestored", name, err)
		}
	}
	logger, lines := logtest.New()
	starting, err := New(Config{Pool: w.config.Pool, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go starting.Run(ctx)
	wait.Until(t, "the start notices it", func() bool { return strings.Contains(lines.String(), ErrRestored.Error()) })
	stop()
	cleared, err := Repair(t.Context(), dbtest.Open(t, w.url, eventstore.OpenFeed), func(int) {})
	if err != nil || cleared != len(all) {
		t.Fatalf("repaired %d events, %v; want %d", cleared, err, len(all))
	}
	if n := number(t, w.pool, "SELECT count(*) FROM upcall.upload_events WHERE recorded_xid IS NOT NULL"); n != len(unread) {
		t.Errorf("%d events have a recorded_xid, want the %d new ones", n, len(unread))
	}

	got, _ := drainUntil(t, w.Log, must(w.Oldest(t.Context()))(t), len(all)+len(unread))
	wantOnce(t, got, all, unread)
	got, last := drainUntil(t, w.Log, end, len(unread))
	wantAll(t, got, unread)
	if len(got) > repairStep+len(unread)+60 {
		t.Errorf("a client that had read everything reads %d entries again", len(got)-len(unread))
	}
	got, _ = drainUntil(t, w.Log, early, len(all)-len(read)+len(unread))
	wantAll(t, append(got, read...), all, unread)

	if cleared, err := Repair(t.Context(), dbtest.Open(t, w.url, eventstore.OpenFeed), func(int) {}); cleared != 0 || err != nil {
		t.Errorf("a second repair cleared %d events, %v", cleared, err)
	}
	next := add(t, w.pool, time.Now(), 1)
	page := must(w.Next(t.Context(), last, 10))(t)
	if len(page.Entries) != 1 || page.Entries[0].Event.ID != next[0] {
		t.Errorf("got %v", page)
	}
}

// TestDumpIsRestoredBelow: the new cluster has assigned higher numbers when the log is first
// read, so that nothing needs a repair. Events that were recorded before that have numbers
// that old cursors are past.
func TestDumpIsRestoredBelow(t *testing.T) {
	t.Parallel()
	old := own(t)
	burn(t, old.pool, 3000)
	start := must(old.Now(t.Context()))(t)
	all := add(t, old.pool, time.Now(), 50)
	read, early := readSome(t, old.Log, start, 20)
	_, end := drainUntil(t, old.Log, start, len(all))
	mark(t, old)
	url := restore(t, old)
	pool := dbtest.Open(t, url, eventstore.Open)
	fresh := add(t, pool, time.Now(), 5)
	burn(t, pool, 5000)
	w := at(t, url)
	fresh = append(fresh, add(t, w.pool, time.Now(), 5)...)
	got, _ := drainUntil(t, w.Log, end, len(fresh))
	wantAll(t, got, fresh)
	got, _ = drainUntil(t, w.Log, early, len(all)-len(read)+len(fresh))
	wantAll(t, append(got, read...), all, fresh)
}

func readSome(t *testing.T, log *Log, after Cursor, n int) (ids []uuid.UUID, end Cursor) {
	t.Helper()
	for len(ids) < n {
		page, err := log.Next(t.Context(), after, n-len(ids))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Entries {
			ids = append(ids, e.Event.ID)
		}
		after = page.Next
	}
	return ids, after
}

// wantAll checks that the ids were read at least once each.
func wantAll(t *testing.T, got []uuid.UUID, want ...[]uuid.UUID) {
	t.Helper()
	there := make(map[uuid.UUID]bool)
	for _, id := range got {
		there[id] = true
	}
	for i, ids := range want {
		missing := 0
		for _, id := range ids {
			if !there[id] {
				missing++
			}
		}
		if missing > 0 {
			t.Errorf("%d of the %d entries of part %d were not read", missing, len(ids), i+1)
		}
	}
}

// TestRepairIsInterrupted: between the runs no one reads the log, though what is ahead of the
// cluster may be cleared already; the second run continues where the first one stopped.
func TestRepairIsInterrupted(t *testing.T) {
	t.Parallel()
	w := shared(t)
	must(w.Now(t.Context()))(t)
	all := add(t, w.pool, time.Now(), 2500)
	const highest = 1 << 40
	exec(t, w.pool, `UPDATE upcall.upload_events e SET recorded_xid = ($1 - n)::text::xid8
		FROM (SELECT id, row_number() OVER (ORDER BY received_at DESC) AS n FROM upcall.upload_events) AS numbered
		WHERE e.id = numbered.id`,
		highest)
	exec(t, w.pool, "INSERT INTO upcall.feed_timelines VALUES (42, 1, '2026-01-01', '3', ($1::bigint - 100)::text::xid8)", highest)
	fresh := add(t, w.pool, time.Now(), 5)
	w.forget(w.history.Load())

	pool := dbtest.Open(t, w.url, eventstore.OpenFeed)
	ctx, kill := context.WithCancel(t.Context())
	defer kill()
	if _, err := Repair(ctx, pool, func(int) { kill() }); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want an interruption", err)
	}
	left := number(t, w.pool, "SELECT count(*) FROM upcall.upload_events WHERE recorded_xid IS NOT NULL")
	if left >= len(all)+len(fresh) || left == len(fresh) {
		t.Fatalf("%d events are left: this tests nothing", left)
	}
	// Even if what is left were not ahead of the cluster.
	exec(t, w.pool, "UPDATE upcall.upload_events SET recorded_xid = '5' WHERE recorded_xid > '1000000000'")
	if _, err := w.Now(t.Context()); !errors.Is(err, ErrRestored) {
		t.Errorf("between the runs: got %v, want ErrRestored", err)
	}
	if _, err := Repair(t.Context(), pool, func(int) {}); err != nil {
		t.Fatal(err)
	}
	got, _ := drainUntil(t, w.Log, must(w.Oldest(t.Context()))(t), len(all)+len(fresh))
	wantOnce(t, got, all, fresh)
	// A client of the other cluster has read all but 700.
	old := cluster{system: 42, timeline: 1}.at(position{xid: highest - 701, id: uuid.Max})
	got, _ = drainUntil(t, w.Log, old, 700+len(fresh))
	wantAll(t, got, all[len(all)-700:], fresh)
	if len(got) > 2000 {
		t.Errorf("it reads %d entries again", len(got))
	}
}
