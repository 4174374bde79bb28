package feed

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/testing/wait"
)

// A world is a log on a database with partitions for some months.
type world struct {
	*Log
	url  string
	pool *pgxpool.Pool // for statements of the test
}

// shared returns a world on a database of its own on the server that the tests of this process
// share. Its watermark is held up by whatever they have open for a moment.
func shared(t *testing.T) *world { return at(t, dbtest.URL(t)) }

// at returns a world on a database, with its log running until the test's end.
func at(t *testing.T, url string) *world {
	t.Helper()
	w := &world{url: url, pool: dbtest.Open(t, url, eventstore.Open)}
	if err := eventstore.EnsurePartitions(t.Context(), w.pool, time.Now()); err != nil {
		t.Fatal(err)
	}
	w.Log = w.another(t)
	return w
}

// another returns another log on the same database, as another receiver has.
func (w *world) another(t *testing.T) *Log {
	t.Helper()
	log, err := New(Config{Pool: dbtest.Open(t, w.url, eventstore.OpenFeed), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { log.Run(ctx); close(done) }()
	t.Cleanup(func() { stop(); <-done })
	return log
}

// A database is a pool, a connection or a transaction.
type database interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// add inserts events as the recorder does, with random ids, and returns the ids.
func add(t *testing.T, db database, at time.Time, n int) (ids []uuid.UUID) {
	t.Helper()
	err := db.QueryRow(t.Context(), `WITH new AS (
		INSERT INTO upcall.upload_events (id, received_at, bucket, source)
		SELECT gen_random_uuid(), $1::timestamptz + n * interval '1 microsecond', 'b', 'callback' FROM generate_series(1, $2) AS n
		RETURNING id
	) SELECT array_agg(id) FROM new`, at, n).Scan(&ids)
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func exec(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func begin(t *testing.T, pool *pgxpool.Pool) pgx.Tx {
	t.Helper()
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback(context.Background()) }) // it may be over
	return tx
}

func commit(t *testing.T, tx pgx.Tx) {
	t.Helper()
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func must[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// drain reads all pages after a cursor, until one is empty, and returns the ids.
func drain(t *testing.T, log *Log, after Cursor, limit int) (ids []uuid.UUID, end Cursor) {
	t.Helper()
	for {
		page, err := log.Page(t.Context(), after, limit)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Entries {
			ids = append(ids, e.Event.ID)
		}
		if after = page.Next; len(page.Entries) == 0 {
			return ids, after
		}
	}
}

// drainUntil reads until there are n entries.
func drainUntil(t *testing.T, log *Log, after Cursor, n int) (ids []uuid.UUID, end Cursor) {
	t.Helper()
	wait.Until(t, fmt.Sprintf("%d entries can be read", n), func() bool {
		var more []uuid.UUID
		more, after = drain(t, log, after, 100)
		ids = append(ids, more...)
		return len(ids) >= n
	})
	return ids, after
}

// wantOnce checks that the ids were read once each, in whatever order.
func wantOnce(t *testing.T, got []uuid.UUID, want ...[]uuid.UUID) {
	t.Helper()
	all := slices.Concat(want...)
	counts := make(map[uuid.UUID]int)
	for _, id := range got {
		counts[id]++
	}
	missing, twice := 0, 0
	for _, id := range all {
		switch n := counts[id]; {
		case n == 0:
			missing++
		case n > 1:
			twice++
		}
	}
	if missing > 0 || twice > 0 || len(got) != len(all) {
		t.Errorf("read %d entries of %d: %d are missing, %d came twice", len(got), len(all), missing, twice)
	}
}

// own returns a world on a server of its own, for tests that keep transactions open.
func own(t *testing.T) *world { return at(t, dbtest.NewServer(t).URL()) }

func number(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) (n int) {
	t.Helper()
	if err := pool.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}
