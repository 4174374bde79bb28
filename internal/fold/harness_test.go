package fold

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"upcall/internal/callbackspec"
	"upcall/internal/dbtest"
	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/testing/metrictest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// noon is when these tests begin by the receivers' clock.
var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// A world is a database with a receiver's parts, on a clock that the test moves.
type world struct {
	url      string
	pool     *pgxpool.Pool
	now      time.Time
	recorder *eventstore.Recorder
	*Worker
}

func newWorld(t testing.TB, change func(*Config)) *world {
	t.Helper()
	return worldAt(t, dbtest.URL(t), change)
}

func worldAt(t testing.TB, url string, change func(*Config)) *world {
	t.Helper()
	w := &world{url: url, now: noon}
	w.pool = dbtest.Open(t, w.url, eventstore.Open)
	if err := eventstore.EnsurePartitions(t.Context(), w.pool, noon); err != nil {
		t.Fatal(err)
	}
	var err error
	w.recorder, err = eventstore.NewRecorder(eventstore.Config{
		Pool: dbtest.Open(t, w.url, eventstore.OpenRecorder), CommitTimeout: time.Minute, Now: func() time.Time { return w.now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.recorder.Close)
	config := Config{Pool: w.pool, Grace: 2 * time.Minute, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Now: func() time.Time { return w.now }}
	if change != nil {
		change(&config)
	}
	if w.Worker, err = New(config); err != nil {
		t.Fatal(err)
	}
	return w
}

// record records events, those with SourceNotification among what waits.
func (w *world) record(t testing.TB, events ...*event.Event) {
	t.Helper()
	for _, e := range events {
		if _, err := w.recorder.Record(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
}

// fold settles all that is due.
func (w *world) fold(t testing.TB) {
	t.Helper()
	for {
		n, err := w.Once(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return
		}
	}
}

// issue writes a row of the ledger.
func (w *world) issue(t testing.TB, key string, vars string) uuid.UUID {
	t.Helper()
	id := uuid.Must(uuid.NewV7())
	w.exec(t, `INSERT INTO upcall.issued_uploads (upload_id, issued_at, expires_at, bucket, object_key, vars)
		VALUES ($1, $2, $3, 'demo', $4, $5)`,
		id, noon.Add(-time.Minute), noon.Add(time.Hour), key, vars)
	return id
}

func (w *world) exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	if _, err := w.pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// lines returns the rows of a query of one text.
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

// outcome returns what became of a notification, "" if it waits.
func (w *world) outcome(t testing.TB, id uuid.UUID) (outcome string) {
	t.Helper()
	err := w.pool.QueryRow(t.Context(), "SELECT coalesce(outcome, '') FROM upcall.notifications WHERE id = $1", id).Scan(&outcome)
	if err != nil {
		t.Fatal(err)
	}
	return outcome
}

// callback returns the event of a callback, with a token if it has an upload.
func callback(upload uuid.NullUUID, key, request, etag string) *event.Event {
	return &event.Event{ID: uuid.NewSHA1(uuid.Nil, []byte(key+request)), ReceivedAt: noon, UploadID: upload, Source: event.SourceCallback,
		Callback: callbackspec.Callback{Bucket: "demo", Object: key, ETag: etag, Size: new(int64(5)), MimeType: "text/plain",
			RequestID: request, Operation: "PutObject"}}
}

// notification returns what a notification tells of the same, some seconds earlier by OSS's clock.
func notification(upload uuid.NullUUID, key, request, etag string) *event.Event {
	e := callback(upload, key, request, etag)
	e.Source, e.ReceivedAt = event.SourceNotification, noon.Add(-3*time.Second)
	e.ID = event.RecoveredID(e.Source, "demo", key, request, etag, e.ReceivedAt)
	e.Callback.MimeType = ""
	return e
}

// listed returns what a listing finds.
func listed(upload uuid.NullUUID, key, etag string) *event.Event {
	e := notification(upload, key, "", etag)
	e.Source, e.Callback.Operation = event.SourceReconcile, ""
	e.ID = event.RecoveredID(e.Source, "demo", key, "", etag, e.ReceivedAt)
	return e
}

func valid(id uuid.UUID) uuid.NullUUID { return uuid.NullUUID{UUID: id, Valid: true} }

// counted returns how many notifications a worker has counted with an outcome, -1 if it does not show that.
func counted(t testing.TB, worker *Worker, outcome string) float64 {
	t.Helper()
	if n, ok := metrictest.Values(t, worker.Collectors()...)["upcall_notifications_settled_total{"+outcome+"}"]; ok {
		return n
	}
	return -1
}
