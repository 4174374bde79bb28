package rollup

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/feed"
	"upcall/internal/testing/wait"
)

// A world is a database with a log and workers.
type world struct {
	url  string        // of the log and workers
	pool *pgxpool.Pool // for statements of the test
	log  *feed.Log
	span time.Duration // before now, of random events
	keys int           // of random events; the more, the fewer uploads of one object tell of the same
}

func newWorld(t testing.TB) *world {
	t.Helper()
	url := dbtest.URL(t)
	return worldAt(t, url, url)
}

// worldAt returns a world whose log and workers come to the database through another URL than the test.
func worldAt(t testing.TB, direct, through string) *world {
	t.Helper()
	w := &world{url: through, pool: dbtest.Open(t, direct, eventstore.Open), span: 10 * time.Hour, keys: 60}
	w.partitions(t, time.Now())
	log, err := feed.New(feed.Config{Pool: dbtest.Open(t, through, eventstore.OpenFeed), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	w.log = log
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { log.Run(ctx); close(done) }()
	t.Cleanup(func() { stop(); <-done })
	return w
}

func (w *world) partitions(t testing.TB, at time.Time) {
	t.Helper()
	if err := eventstore.EnsurePartitions(context.Background(), w.pool, at); err != nil {
		t.Fatal(err)
	}
}

// worker returns a worker and a function that runs it until the test's end, or stop is called.
func (w *world) worker(t testing.TB, lease time.Duration) (worker *Worker, run func() (stop func())) {
	t.Helper()
	pool := dbtest.Open(t, w.url, eventstore.OpenFeed)
	consumers, err := feed.NewConsumers(feed.ConsumersConfig{Pool: pool, Lease: lease})
	if err != nil {
		t.Fatal(err)
	}
	worker, err = New(Config{Pool: pool, Log: w.log, Consumers: consumers, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Pause: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return worker, func() (stop func()) {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { worker.Run(ctx); close(done) }()
		stop = func() { cancel(); <-done }
		t.Cleanup(stop)
		return stop
	}
}

func (w *world) exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	if _, err := w.pool.Exec(context.Background(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func (w *world) number(t testing.TB, sql string, args ...any) (n int) {
	t.Helper()
	if err := w.pool.QueryRow(context.Background(), sql, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

func (w *world) lines(t testing.TB, sql string, args ...any) []string {
	t.Helper()
	rows, err := w.pool.Query(context.Background(), sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return lines
}

// caughtUp waits until a worker has counted all.
func (w *world) caughtUp(t testing.TB, worker *Worker) {
	t.Helper()
	wait.Until(t, "all is counted", func() bool {
		if w.number(t, "SELECT count(*) FROM upcall.feed_consumers WHERE name = 'rollup'") == 0 {
			return false
		}
		behind, err := worker.Behind(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return len(behind) == 0
	})
}

// compare checks what is kept against the plain query.
func (w *world) compare(t testing.TB) {
	t.Helper()
	lines, compared, err := Differences(context.Background(), w.pool, 20)
	if err != nil || compared == 0 {
		t.Fatalf("compared %d lines, %v", compared, err)
	}
	if len(lines) > 0 {
		t.Errorf("plain queries and what is kept differ:\n%s", head(strings.Join(lines, "\n")))
	}
}

// rebuilt waits until a rebuild is complete.
func (w *world) rebuilt(t testing.TB, worker *Worker) {
	t.Helper()
	wait.Until(t, "it is built", func() bool {
		p, err := worker.Progress(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return p.Done
	})
}

func head(s string) string {
	if len(s) > 4000 {
		return fmt.Sprintf("%s\n… %d bytes more", s[:4000], len(s)-4000)
	}
	return s
}
