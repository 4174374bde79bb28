package rollup

import (
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/testing/toolchain"
	"upcall/internal/testing/wait"
)

// eitherURL leads to that of two servers which accepts writes.
func eitherURL(t *testing.T, primary, standby *dbtest.Server) string {
	t.Helper()
	u, err := url.Parse(primary.URL())
	if err != nil {
		t.Fatal(err)
	}
	u.Host += fmt.Sprintf(",127.0.0.1:%d", standby.Port())
	query := u.Query()
	query.Set("target_session_attrs", "read-write")
	u.RawQuery = query.Encode()
	return u.String()
}

// follows waits until a standby has what the primary has.
func (w *world) follows(t *testing.T, standby *pgxpool.Pool) {
	t.Helper()
	position := w.lines(t, "SELECT pg_current_wal_insert_lsn()::text")[0]
	wait.Until(t, "the standby follows", func() bool {
		var there bool
		if err := standby.QueryRow(t.Context(), "SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn", position).Scan(&there); err != nil {
			t.Fatal(err)
		}
		return there
	})
}

// TestFailover: the primary is lost while events come and a generation is built, and a standby is promoted
// that lacks what was counted last. What was counted stays, what was lost is lost with its counts, and what
// is read again counts once. The workers go on by themselves.
func TestFailover(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "standby")
	primary := dbtest.NewServer(t)
	standby := dbtest.NewStandby(t, primary.URL())
	follower := dbtest.Open(t, standby.URL(), eventstore.Open)
	either := eitherURL(t, primary, standby)
	w, random := worldAt(t, either, either), seeded(t)
	w.keys = 2000
	worker, run := w.worker(t, time.Second)
	quick(worker)
	run()
	_, another := w.worker(t, time.Second)
	another()
	w.addRandom(t, random, 500)
	w.caughtUp(t, worker)
	if err := Rebuild(t.Context(), w.pool); err != nil {
		t.Fatal(err)
	}
	w.addRandom(t, random, 300)
	w.rebuilt(t, worker)
	w.caughtUp(t, worker)
	w.follows(t, follower)
	timeline := w.number(t, "SELECT timeline FROM upcall.feed_consumers WHERE name = 'rollup'")

	// The standby gets no more of it.
	for _, sql := range []string{"ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()"} {
		if _, err := follower.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	wait.Until(t, "the standby has left", func() bool { return w.number(t, "SELECT count(*) FROM pg_stat_replication") == 0 })
	w.addRandom(t, random, 300)
	w.add(t, time.Now(), "lost", "x/y", "callback", "")
	w.caughtUp(t, worker)
	w.compare(t)
	stop := w.load(t, random)
	if err := Rebuild(t.Context(), w.pool); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, "it is being built", func() bool {
		return w.number(t, "SELECT count(*) FROM upcall.feed_consumers WHERE name = 'rollup/next'") == 1
	})
	primary.Kill(t)
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, "events come again", func() bool {
		var n int
		err := w.pool.QueryRow(t.Context(), "SELECT count(*) FROM upcall.upload_events").Scan(&n)
		return err == nil && n > 1200
	})
	stop()
	w.caughtUp(t, worker)
	w.compare(t)
	w.compareViews(t)
	if n := w.number(t, "SELECT timeline FROM upcall.feed_consumers WHERE name = 'rollup'"); n != timeline+1 {
		t.Errorf("the consumer is on timeline %d, want %d", n, timeline+1)
	}
	if n := w.number(t, "SELECT count(*) FROM upcall.upload_events WHERE object_key = 'lost'"); n > 0 {
		t.Error("nothing was lost: this tests less than it should")
	}
	if err := Rebuild(t.Context(), w.pool); err != nil {
		t.Fatal(err)
	}
	w.rebuilt(t, worker)
	w.caughtUp(t, worker)
	w.compare(t)
}
