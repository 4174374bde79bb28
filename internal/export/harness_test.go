package export

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/callbackspec"
	"upcall/internal/dbtest"
	"upcall/internal/event"
	"upcall/internal/eventstore"
)

// day is the first day of the tests' events, at the end of a month.
var day = time.Date(2026, 10, 31, 0, 0, 0, 0, time.UTC)

// now is the tests' clock.
func now() time.Time { return day.AddDate(0, 0, 4) }

// database returns a database with these events, and a pool on it.
func database(t *testing.T, events ...*event.Event) *pgxpool.Pool {
	t.Helper()
	pool := dbtest.Pool(t, eventstore.Open)
	if err := eventstore.EnsurePartitions(t.Context(), pool, now()); err != nil {
		t.Fatal(err)
	}
	record(t, pool, events...)
	return pool
}

// record writes events as the recorder does.
func record(t *testing.T, pool *pgxpool.Pool, events ...*event.Event) {
	t.Helper()
	var names, values []string
	for _, c := range event.Columns {
		names, values = append(names, c.Name), append(values, "r."+c.Name)
	}
	statement := fmt.Sprintf("INSERT INTO upcall.upload_events (%s) SELECT %s FROM jsonb_populate_record(NULL::upcall.upload_events, "+
		"$1::jsonb || jsonb_build_object('id', $1::jsonb->>'event_id')) AS r", strings.Join(names, ", "), strings.Join(values, ", "))
	for _, e := range events {
		text, err := e.AppendJSON(nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pool.Exec(t.Context(), statement, text); err != nil {
			t.Fatal(err)
		}
	}
}

func pages(t *testing.T, pool *pgxpool.Pool) *eventstore.Pages {
	t.Helper()
	return eventstore.NewPages(dbtest.Beside(t, pool, eventstore.OpenPages))
}

// full returns an event without a null.
func full(at time.Time) *event.Event {
	return &event.Event{
		ID: uuid.New(), ReceivedAt: at, Source: event.SourceCallback, UploadID: uuid.NullUUID{UUID: uuid.New(), Valid: true},
		Callback: callbackspec.Callback{Bucket: "demo", Object: "a/é 日本 🙂.jpg", ETag: "D8E8", Size: new(int64(math.MaxInt64)),
			MimeType: "image/jpeg", ImageHeight: new(int32(768)), ImageWidth: new(int32(math.MaxInt32)), ImageFormat: "jpg",
			CRC64: new(uint64(math.MaxUint64)), ContentMD5: "2Oj8otwPiW/Xy0ywAxuiSQ==", VPCID: "123",
			ClientIP: netip.MustParseAddr("2001:db8::1"), RequestID: "5C3D", Operation: "PutObject",
			Vars: map[string]json.RawMessage{"uid": json.RawMessage(`"42"`), "名": json.RawMessage(`{"a":[1,null,"é"]}`)}},
	}
}

// bare returns an event with every null that there can be.
func bare(at time.Time) *event.Event {
	return &event.Event{ID: uuid.New(), ReceivedAt: at, Source: event.SourceCallback}
}

// keyed returns an event with an object key.
func keyed(at time.Time, key string) *event.Event {
	e := bare(at)
	e.Callback.Object = key
	return e
}

// run exports and fails the test on an error.
func runAll(t *testing.T, cfg Config) Progress {
	t.Helper()
	got, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func formatNamed(t *testing.T, name string) Format {
	t.Helper()
	f, ok := FormatNamed(name)
	if !ok {
		t.Fatalf("there is no format %s", name)
	}
	return f
}

// files returns the paths below a directory, without it, that do not begin with an underscore.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && !strings.HasPrefix(entry.Name(), "_") {
			found = append(found, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// A hooked source calls a function before each page.
type hooked struct {
	Source
	before func(eventstore.Span) error
}

func (h hooked) Next(ctx context.Context, s eventstore.Span, after eventstore.Place, limit int) ([]*event.Event, error) {
	if err := h.before(s); err != nil {
		return nil, err
	}
	return h.Source.Next(ctx, s, after, limit)
}
