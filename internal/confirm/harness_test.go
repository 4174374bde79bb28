package confirm

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	sdk "github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/dbtest"
	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/feed"
	"upcall/internal/oss"
	"upcall/internal/rollup"
	"upcall/internal/testing/logtest"
	"upcall/internal/testing/ossclient"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/wait"
)

// A world is a database and a bucket, with the receivers that a test starts.
type world struct {
	url   string
	pool  *pgxpool.Pool
	gate  *ossfake.Gate // in front of OSS
	away  http.Handler  // OSS itself, which the test changes
	user  *sdk.Client   // of the bucket, past the gate
	logs  *logtest.Buffer
	log   *slog.Logger
	clock *clock
}

// A clock is moved on by hand, ahead of the system's.
type clock struct {
	mu    sync.Mutex
	ahead time.Duration
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

func (c *clock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}

func newWorld(t *testing.T) *world {
	t.Helper()
	emulator := ossfake.NewEmulator(t)
	w := &world{url: dbtest.URL(t), gate: ossfake.NewGate(t, emulator), clock: new(clock)}
	direct := httptest.NewServer(emulator)
	t.Cleanup(direct.Close)
	w.user = ossclient.New(direct.URL, ossfake.Region, ossfake.AccessKeyID, ossfake.AccessKeySecret)
	w.log, w.logs = logtest.New()
	w.pool = dbtest.Open(t, w.url, eventstore.Open)
	if err := eventstore.EnsurePartitions(t.Context(), w.pool, time.Now()); err != nil {
		t.Fatal(err)
	}
	return w
}

// background runs something until the returned function is called, or the test ends.
func background(t *testing.T, work func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { work(ctx); close(done) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

func (w *world) reader(t *testing.T) (*pgxpool.Pool, *feed.Log, *feed.Consumers) {
	t.Helper()
	pool := dbtest.Open(t, w.url, eventstore.OpenFeed)
	log, err := feed.New(feed.Config{Pool: pool, Logger: w.log})
	if err != nil {
		t.Fatal(err)
	}
	consumers, err := feed.NewConsumers(feed.ConsumersConfig{Pool: pool, Lease: 3 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return pool, log, consumers
}

// rollups counts uploads until the test ends.
func (w *world) rollups(t *testing.T) {
	t.Helper()
	pool, log, consumers := w.reader(t)
	worker, err := rollup.New(rollup.Config{Pool: pool, Log: log, Consumers: consumers, Logger: w.log, Pause: 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	background(t, worker.Run)
}

// receiver confirms until the returned function is called, or the test ends.
func (w *world) receiver(t *testing.T, change ...func(*Config)) (worker *Worker, stop func()) {
	t.Helper()
	client, err := oss.New(oss.Config{Region: ossfake.Region, Endpoint: w.gate.URL, PathStyle: true,
		AccessKeyID: ossfake.AccessKeyID, AccessKeySecret: ossfake.AccessKeySecret})
	if err != nil {
		t.Fatal(err)
	}
	pool, log, consumers := w.reader(t)
	config := Config{Pool: pool, Log: log, Consumers: consumers, OSS: client, Logger: w.log, Mode: all, Now: w.clock.Now,
		Rate: 10_000, tick: 5 * time.Millisecond}
	for _, c := range change {
		c(&config)
	}
	worker, err = New(config)
	if err != nil {
		t.Fatal(err)
	}
	return worker, background(t, worker.Run)
}

// begun waits until the consumer is there: it begins at the end of the log.
func (w *world) begun(t *testing.T) {
	t.Helper()
	wait.Until(t, "the consumer is there", func() bool { return w.count(t, "feed_consumers WHERE name = 'confirm'") == 1 })
}

func (w *world) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	if _, err := w.pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func (w *world) count(t *testing.T, what string, args ...any) (n int) {
	t.Helper()
	if err := w.pool.QueryRow(t.Context(), "SELECT count(*) FROM upcall."+what, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	return n
}

func (w *world) lines(t *testing.T, sql string, args ...any) []string {
	t.Helper()
	rows, err := w.pool.Query(t.Context(), sql, args...)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// put stores an object without a callback, and returns what a callback would say.
func (w *world) put(t *testing.T, key, content string) *event.Event {
	t.Helper()
	result, err := w.user.PutObject(t.Context(), &sdk.PutObjectRequest{Bucket: sdk.Ptr(ossfake.Bucket), Key: &key,
		Body: bytes.NewReader([]byte(content))})
	if err != nil {
		t.Fatal(err)
	}
	var crc uint64
	if _, err := fmt.Sscan(*result.HashCRC64, &crc); err != nil {
		t.Fatal(err)
	}
	e := &event.Event{ID: uuid.New(), Source: event.SourceCallback, ReceivedAt: time.Now().UTC().Truncate(time.Microsecond)}
	c := &e.Callback
	c.Bucket, c.Object, c.ETag, c.Size = ossfake.Bucket, key, event.PlainETag(*result.ETag), new(int64(len(content)))
	c.CRC64, c.RequestID, c.Operation = &crc, e.ID.String()[:24], "PutObject"
	return e
}

func (w *world) delete(t *testing.T, key string) {
	t.Helper()
	if _, err := w.user.DeleteObject(t.Context(), &sdk.DeleteObjectRequest{Bucket: sdk.Ptr(ossfake.Bucket), Key: &key}); err != nil {
		t.Fatal(err)
	}
}

// record writes events to a table as it is.
func (w *world) record(t *testing.T, table string, events ...*event.Event) {
	t.Helper()
	for _, e := range events {
		c := &e.Callback
		w.exec(t, `INSERT INTO upcall.`+table+` (id, received_at, bucket, object_key, etag, size, crc64, request_id, operation,
				upload_id, vars, source)
			VALUES ($1, $2, nullif($3, ''), nullif($4, ''), nullif($5, ''), $6, $7, nullif($8, ''), $9, $10, '{}', $11)`,
			e.ID, e.ReceivedAt, c.Bucket, c.Object, c.ETag, c.Size, c.CRC64, c.RequestID, c.Operation, e.UploadID, string(e.Source))
	}
}

// hold keeps readers of the log from what is recorded until the returned function is called.
func (w *world) hold(t *testing.T) (release func()) {
	t.Helper()
	tx, err := w.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "SELECT pg_current_xact_id()"); err != nil { // without an id it holds nothing
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// upload stores and records objects.
func (w *world) upload(t *testing.T, keys ...string) (events []*event.Event) {
	t.Helper()
	for _, key := range keys {
		events = append(events, w.put(t, key, "content of "+key))
	}
	w.record(t, "upload_events", events...)
	return events
}

// outcomes returns what there is to know of events, by their keys.
func (w *world) outcomes(t *testing.T) []string {
	t.Helper()
	return sorted(w.lines(t, `SELECT e.object_key || ' ' || c.outcome || ' ' || c.looked_at FROM upcall.confirmations c
		JOIN upcall.upload_events e ON e.received_at = c.event_received_at AND e.id = c.event_id`)...)
}

// waitFor waits until so many events have an outcome, and returns all outcomes.
func (w *world) waitFor(t *testing.T, n int) []string {
	t.Helper()
	wait.Until(t, fmt.Sprintf("%d events have an outcome", n), func() bool { return w.count(t, "confirmations") >= n })
	return w.outcomes(t)
}

// findings returns those that there are, by the events' keys.
func (w *world) findings(t *testing.T) []string {
	t.Helper()
	return sorted(w.lines(t, `SELECT e.object_key || ' ' || f.kind || ' ' || (f.found->'differs')::text FROM upcall.findings f
		JOIN upcall.upload_events e ON e.received_at = f.event_received_at AND e.id = f.event_id`)...)
}

func sorted(lines ...string) []string {
	slices.Sort(lines)
	return lines
}
