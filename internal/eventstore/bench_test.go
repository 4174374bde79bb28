package eventstore

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/callbackspec"
	"upcall/internal/dbtest"
	"upcall/internal/event"
)

// callers is how many requests wait at once.
const callers = 128

func newEvent() *event.Event {
	size, crc := int64(129_434), uint64(15_300_000_000_000_000_000)
	width, height := int32(1280), int32(960)
	return &event.Event{
		ID:         uuid.New(),
		ReceivedAt: time.Now(),
		UploadID:   uuid.NullUUID{UUID: uuid.Must(uuid.NewV7()), Valid: true},
		Source:     event.SourceCallback,
		Callback: callbackspec.Callback{
			Bucket: "demo", Object: "photos/2026/11/" + uuid.NewString() + ".jpg",
			ETag: "D8E8FCA2DC0F896FD7CB4CB0031BA249", Size: &size, MimeType: "image/jpeg",
			ImageWidth: &width, ImageHeight: &height, ImageFormat: "jpg", CRC64: &crc,
			ContentMD5: "2Oj8otwPiW/Xy0ywAxuiSQ==", ClientIP: netip.MustParseAddr("203.0.113.7"),
			RequestID: "656F1A2B3C4D5E6F70819203", Operation: "PutObject",
			Vars: map[string]json.RawMessage{"x:user": json.RawMessage(`"4711"`), "x:album": json.RawMessage(`"summer"`)},
		},
	}
}

func benchPool(b *testing.B, url string, conns int) *pgxpool.Pool {
	b.Helper()
	pool, err := OpenRecorder(b.Context(), fmt.Sprintf("%s&pool_max_conns=%d", url, conns))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(pool.Close)
	if err := EnsurePartitions(b.Context(), pool, time.Now()); err != nil {
		b.Fatal(err)
	}
	return pool
}

// drive calls commit b.N times, from many goroutines at once, and reports the rate.
func drive(b *testing.B, commit func() error, unit string) {
	b.Helper()
	b.ReportAllocs()
	b.ResetTimer()
	var next atomic.Int64
	var group sync.WaitGroup
	for range callers {
		group.Go(func() {
			for next.Add(1) <= int64(b.N) {
				if err := commit(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), unit)
}

// BenchmarkRecord compares the recorder with one statement for each request. Both commit durably
// to the same tables; the ratio of their events/s is the gain of group commit.
func BenchmarkRecord(b *testing.B) {
	url := dbtest.NewServer(b).URL()
	b.Run("group commit", func(b *testing.B) {
		for writers := 1; writers <= 4; writers++ {
			b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
				pool := benchPool(b, url, 8)
				var batches, events atomic.Int64
				r, err := NewRecorder(Config{Pool: pool, Writers: writers, OnBatch: func(n int, _ time.Duration) {
					batches.Add(1)
					events.Add(int64(n))
				}})
				if err != nil {
					b.Fatal(err)
				}
				defer r.Close()
				drive(b, func() error {
					_, err := r.Record(b.Context(), newEvent())
					return err
				}, "events/s")
				b.ReportMetric(float64(events.Load())/float64(batches.Load()), "events/batch")
			})
		}
	})
	b.Run("insert each", func(b *testing.B) {
		for _, conns := range []int{16, 64} {
			b.Run(fmt.Sprintf("conns=%d", conns), func(b *testing.B) {
				pool := benchPool(b, url, conns)
				drive(b, func() error { return insertOne(b.Context(), pool, newEvent()) }, "events/s")
			})
		}
	})
}

// insertEvent records one event in the recorder's tables. Its parameters are the event's columns
// in order.
var insertEvent = func() string {
	values := make([]string, len(event.Columns))
	number := make(map[string]string)
	for i, c := range event.Columns {
		values[i] = fmt.Sprintf("$%d", i+1)
		number[c.Name] = values[i]
	}
	return fmt.Sprintf(`
	WITH fresh AS (
		INSERT INTO upcall.callback_ids (upload_id, id, received_at) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING RETURNING id
	)
	INSERT INTO upcall.upload_events (%s) SELECT %s FROM fresh RETURNING id`,
		number["upload_id"], number["id"], number["received_at"], strings.Join(columnNames(), ", "), strings.Join(values, ", "))
}()

func columnNames() []string {
	names := make([]string, len(event.Columns))
	for i, c := range event.Columns {
		names[i] = c.Name
	}
	return names
}

func oneRow(e *event.Event) []any {
	values := make([]any, len(event.Columns))
	for i, c := range event.Columns {
		values[i] = c.Field(e)
	}
	return values
}

// insertOne does what a handler without group commit would do.
func insertOne(ctx context.Context, pool *pgxpool.Pool, e *event.Event) error {
	_, err := pool.Exec(ctx, insertEvent, oneRow(e)...)
	return err
}

// BenchmarkIssue measures the ledger, which uses the same group commit.
func BenchmarkIssue(b *testing.B) {
	url := dbtest.NewServer(b).URL()
	for writers := 1; writers <= 2; writers++ {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			l, err := NewLedger(Config{Pool: benchPool(b, url, 8), Writers: writers})
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			size := int64(129_434)
			drive(b, func() error {
				id, now := uuid.Must(uuid.NewV7()), time.Now()
				return l.Issue(b.Context(), IssuedUpload{
					ID: id, IssuedAt: now, ExpiresAt: now.Add(time.Hour), Bucket: "demo",
					Object:      "photos/2026/11/" + uuid.NewString() + ".jpg",
					ContentType: "image/jpeg", Size: &size, Vars: map[string]string{"user": "4711", "album": "summer"}, APIKeyID: "web",
				})
			}, "uploads/s")
		})
	}
}
