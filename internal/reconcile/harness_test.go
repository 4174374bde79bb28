package reconcile

import (
	"context"
	"crypto/md5"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/feed"
	"upcall/internal/oss"
	"upcall/internal/rollup"
	"upcall/internal/testing/wait"
)

// now is the tests' clock, and old is before the grace.
var (
	now = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	old = now.Add(-time.Hour)
)

// A bucket is one that a test fills.
type bucket struct {
	mu      sync.Mutex
	keys    []string // sorted
	objects map[string]oss.Head
	listed  map[string]oss.Head // what listings say instead
	lists   int
	heads   []string
	onList  func(n int, l oss.Listing) error // is called before the nth listing is answered
	onHead  func(key string)
}

func newBucket() *bucket {
	return &bucket{objects: make(map[string]oss.Head), listed: make(map[string]oss.Head)}
}

func etag(content string) string { return fmt.Sprintf("%X", md5.Sum([]byte(content))) }

// put stores an object.
func (b *bucket) put(key, content string, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	sum := uint64(len(content))
	b.objects[key] = oss.Head{Size: int64(len(content)), ETag: etag(content), CRC64: &sum, LastModified: at, ContentType: "text/plain"}
	if i, found := slices.BinarySearch(b.keys, key); !found {
		b.keys = slices.Insert(b.keys, i, key)
	}
}

func (b *bucket) remove(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.objects, key)
	b.keys = slices.DeleteFunc(b.keys, func(k string) bool { return k == key })
}

func (b *bucket) List(ctx context.Context, l oss.Listing) (page oss.Page, err error) {
	b.mu.Lock()
	b.lists++
	n, on := b.lists, b.onList
	b.mu.Unlock()
	if on != nil {
		if err := on(n, l); err != nil {
			return oss.Page{}, err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	i, found := slices.BinarySearch(b.keys, max(l.After, l.Prefix))
	if found && b.keys[i] == l.After {
		i++
	}
	for _, key := range b.keys[i:] {
		if !strings.HasPrefix(key, l.Prefix) {
			if key > l.Prefix {
				break
			}
			continue
		}
		if len(page.Objects) == oss.MaxPage {
			page.More = true
			break
		}
		head, ok := b.listed[key]
		if !ok {
			head = b.objects[key]
		}
		page.Objects = append(page.Objects, oss.Listed{Key: key, ETag: head.ETag, Size: head.Size, LastModified: head.LastModified})
	}
	return page, ctx.Err()
}

func (b *bucket) Head(ctx context.Context, _, key string) (oss.Head, error) {
	b.mu.Lock()
	b.heads = append(b.heads, key)
	on := b.onHead
	b.mu.Unlock()
	if on != nil {
		on(key)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	head, ok := b.objects[key]
	if !ok {
		return oss.Head{}, fmt.Errorf("head: %w", oss.ErrNoObject)
	}
	return head, ctx.Err()
}

// A world is a database with a log and its roll-ups.
type world struct {
	pool   *pgxpool.Pool // as runs have it
	direct *pgxpool.Pool // for statements of the test
	log    *feed.Log
	worker *rollup.Worker
}

func newWorld(t testing.TB) *world {
	t.Helper()
	url := dbtest.URL(t)
	w := &world{pool: dbtest.Open(t, url, eventstore.OpenFeed), direct: dbtest.Open(t, url, eventstore.Open)}
	for _, at := range []time.Time{now, now.AddDate(0, -3, 0)} {
		if err := eventstore.EnsurePartitions(t.Context(), w.direct, at); err != nil {
			t.Fatal(err)
		}
	}
	log, err := feed.New(feed.Config{Pool: w.pool, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	w.log = log
	consumers, err := feed.NewConsumers(feed.ConsumersConfig{Pool: w.pool})
	if err != nil {
		t.Fatal(err)
	}
	w.worker, err = rollup.New(rollup.Config{Pool: w.pool, Log: log, Consumers: consumers, Logger: slog.New(slog.DiscardHandler),
		Pause: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { log.Run(ctx) })
	running.Go(func() { w.worker.Run(ctx) })
	t.Cleanup(func() { stop(); running.Wait() })
	return w
}

// counted waits until the roll-ups have read all that is recorded.
func (w *world) counted(t testing.TB) {
	t.Helper()
	wait.Until(t, "all is counted", func() bool {
		behind, err := w.worker.Behind(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return len(behind) == 0 && w.number(t, "SELECT count(*) FROM upcall.feed_consumers WHERE name = 'rollup'") > 0
	})
}

func (w *world) exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	if _, err := w.direct.Exec(context.Background(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func (w *world) number(t testing.TB, sql string, args ...any) (n int) {
	t.Helper()
	if err := w.direct.QueryRow(context.Background(), sql, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

func (w *world) lines(t testing.TB, sql string, args ...any) []string {
	t.Helper()
	rows, err := w.direct.Query(context.Background(), sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return lines
}

// issue writes a row of the ledger.
func (w *world) issue(t testing.TB, key string, at time.Time, size any) uuid.UUID {
	t.Helper()
	id := uuid.New()
	w.exec(t, `INSERT INTO upcall.issued_uploads (upload_id, issued_at, expires_at, bucket, object_key, size, vars)
		VALUES ($1, $2, $3, 'photos', $4, $5, jsonb_build_object('key', $4::text))`, id, at, at.Add(time.Hour), key, size)
	return id
}

// tell records an event of a callback.
func (w *world) tell(t testing.TB, key, tag string, at time.Time, upload any) {
	t.Helper()
	w.exec(t, `WITH id AS (INSERT INTO upcall.callback_ids (upload_id, id, received_at)
			VALUES (coalesce($4::uuid, '00000000-0000-0000-0000-000000000000'), gen_random_uuid(), $3) RETURNING id)
		INSERT INTO upcall.upload_events (id, received_at, source, bucket, object_key, etag, size, upload_id)
		SELECT id, $3, 'callback', 'photos', $1, nullif($2, ''), 1, $4::uuid FROM id`, key, tag, at, upload)
}

// config returns what to run in the world.
func (w *world) config(t testing.TB, b Bucket) Config {
	return Config{Pool: w.pool, Log: w.log, OSS: b, Bucket: "photos", Rate: 1e6, KeepDays: 31, Lease: 2 * time.Second,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Now: func() time.Time { return now }}
}

// reconcile runs and fails the test if that fails.
func (w *world) reconcile(t testing.TB, cfg Config) Result {
	t.Helper()
	got, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return got
}
