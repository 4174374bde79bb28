package recorder

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/dbtest"
	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/testing/wait"
)

// TestOverused: one upload cannot fill the fallback while PostgreSQL is away. The others, its
// own repeats and callbacks without a token do not suffer, and what was taken is recorded.
func TestOverused(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, eventstore.Open)
	store, queue := newFaulty(t, pool), openSpool(t, t.TempDir(), nil)
	store.set(away)
	f := New(store, queue, Config{PrimaryTimeout: time.Minute, MaxEvents: 2, Logger: slog.New(slog.DiscardHandler)})
	upload, last := newEvent().UploadID, newEvent()
	of := func(upload uuid.NullUUID) *event.Event { e := newEvent(); e.UploadID = upload; return e }
	refused := func() {
		t.Helper()
		if _, err := f.Record(t.Context(), of(upload)); !errors.Is(err, event.ErrOverused) || errors.Is(err, event.ErrUnavailable) {
			t.Errorf("one too many: %v, want event.ErrOverused", err)
		}
	}
	record(t, f, of(upload), spooled)
	last.UploadID = upload
	record(t, f, last, spooled)
	refused()
	record(t, f, last, spooledTwice)
	for range 3 {
		record(t, f, newEvent(), spooled)
		record(t, f, of(uuid.NullUUID{}), spooled)
	}
	refused()
	store.set(nil)
	drains(t, f)
	wait.Until(t, "all have moved and PostgreSQL is back", func() bool {
		_, err := f.Find(context.Background(), last.ID, upload)
		return queue.Depth() == 0 && err == nil
	})
	record(t, f, last, committedTwice)
	record(t, f, of(upload), committed) // this recorder has no limit
}
