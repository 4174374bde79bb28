package rollup

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/feed"
	"upcall/internal/testing/wait"
)

// A world is a database with a log and workers.
type world struct {
	url  string
	pool *pgxpool.Pool
	log  *feed.Log
	span time.Duration // before now, of random events
}

func newWorld(t testing.TB) *world {
	t.Helper()
	url := dbtest.URL(t)
	w := &world{url: url, pool: dbtest.Open(t, url, eventstore.Open), span: 10 * time.Hour}
	w.partitions(t, time.Now())
	log, err := feed.New(feed.Config{Pool: dbtest.Open(t, url, eventstore.OpenFeed), Logger: slog.New(slog.DiscardHandler)})
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

func (w *world) lines(t testing.TB, sql string) []string {
	t.Helper()
	rows, err := w.pool.Query(context.Background(), sql)
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

const (
	// counted is the plain query: each upload once. Of several sources that tell of the same
	// request to the same object, the best counts.
	counted = `
		WITH ranked AS (
			SELECT *, array_position(ARRAY['callback', 'notification', 'reconcile'], source) AS rank,
				bucket IS NOT NULL AND object_key IS NOT NULL AND octet_length(bucket) + octet_length(object_key) <= 2600 AS placed
			FROM upcall.upload_events
		), best AS (
			SELECT *, min(rank) OVER (PARTITION BY bucket, object_key, request_id) AS best FROM ranked
		), counted AS (
			SELECT *, CASE WHEN lower(trim(split_part(mime_type, ';', 1)) COLLATE "C") IN ('image/jpg', 'image/pjpeg') THEN 'image/jpeg'
					ELSE lower(coalesce(trim(split_part(mime_type, ';', 1)), '') COLLATE "C") END AS type
			FROM best WHERE NOT placed OR request_id IS NULL OR rank = best
		), placed AS (
			SELECT *, CASE WHEN placed THEN row_number() OVER (PARTITION BY placed, bucket, object_key ORDER BY received_at, id) END AS nth,
				row_number() OVER (PARTITION BY placed, bucket, object_key ORDER BY received_at DESC, id DESC) AS last,
				count(*) OVER (PARTITION BY placed, bucket, object_key) AS uploads
			FROM counted
		)`
	plainHourly = counted + `
		SELECT concat_ws(' ', extract(epoch FROM date_trunc('hour', received_at AT TIME ZONE 'UTC'))::bigint, coalesce(bucket, '-'),
			type, source, count(*), coalesce(sum(size), 0), count(*) FILTER (WHERE nth = 1), count(*) FILTER (WHERE nth > 1))
		FROM placed GROUP BY date_trunc('hour', received_at AT TIME ZONE 'UTC'), bucket, type, source
		ORDER BY 1`
	keptHourly = `
		SELECT concat_ws(' ', extract(epoch FROM hour)::bigint, coalesce(nullif(bucket, ''), '-'), mime_type, source,
			uploads, bytes, new_objects, overwrites)
		FROM upcall.rollup_hourly WHERE uploads <> 0
			AND generation = (SELECT generation FROM upcall.rollup_generations WHERE stage = 'current')
		ORDER BY 1`
	plainObjects = counted + `
		SELECT concat_ws(' ', bucket, object_key, uploads, id, received_at, size, etag, crc64, mime_type, vars)
		FROM placed WHERE placed AND last = 1 ORDER BY 1`
	keptObjects = `
		SELECT concat_ws(' ', bucket, object_key, uploads, event_id, received_at, size, etag, crc64, mime_type, vars)
		FROM upcall.rollup_objects
		WHERE generation = (SELECT generation FROM upcall.rollup_generations WHERE stage = 'current') ORDER BY 1`
	plainVersions = counted + `
		SELECT concat_ws(' ', id, received_at) FROM placed WHERE placed AND nth <> 1 AND last <> 1 ORDER BY 1`
	keptVersions = `
		SELECT concat_ws(' ', event_id, received_at) FROM upcall.rollup_versions
		WHERE generation = (SELECT generation FROM upcall.rollup_generations WHERE stage = 'current') ORDER BY 1`
)

// compare checks what is kept against the plain query.
func (w *world) compare(t testing.TB) {
	t.Helper()
	for name, q := range map[string][2]string{"hourly": {plainHourly, keptHourly}, "objects": {plainObjects, keptObjects},
		"versions": {plainVersions, keptVersions}} {
		want, got := w.lines(t, q[0]), w.lines(t, q[1])
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-plain query +kept):\n%s", name, head(diff))
		}
		if len(want) == 0 && name != "versions" {
			t.Errorf("%s: nothing to compare", name)
		}
	}
}

func head(s string) string {
	if len(s) > 4000 {
		return fmt.Sprintf("%s\n… %d bytes more", s[:4000], len(s)-4000)
	}
	return s
}
