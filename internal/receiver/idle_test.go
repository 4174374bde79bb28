package receiver

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/dbtest"
	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/spool"
)

// TestIdleLooksUpstreamFirst: what moves on while a call looks is found further on. Looked for the other way
// round, an event that leaves the spool between two looks would be nowhere.
func TestIdleLooksUpstreamFirst(t *testing.T) {
	t.Parallel()
	url, dir := dbtest.URL(t), t.TempDir()
	pool := dbtest.Open(t, url, eventstore.Open)
	if err := eventstore.EnsurePartitions(t.Context(), pool, time.Now()); err != nil {
		t.Fatal(err)
	}
	key := viewerKey(t, url)
	queue, err := spool.Open(t.Context(), spool.Config{Dir: dir, MinFreeBytes: -1, Logger: slog.New(slog.DiscardHandler)})
	if err == nil {
		_, err = queue.Put(t.Context(), &event.Event{ID: uuid.New(), ReceivedAt: time.Now()})
	}
	if err == nil {
		err = queue.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	// Nothing leaves the spool, and nothing in the log may be read.
	holder, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = holder.Rollback(t.Context()) }() // the database ends with the test
	_, err = holder.Exec(t.Context(), "LOCK TABLE upcall.callback_ids IN SHARE MODE; SELECT pg_current_xact_id()")
	if err != nil {
		t.Fatal(err)
	}
	dbtest.Execute(t, url, `INSERT INTO upcall.upload_events (id, received_at, vars, source)
		VALUES (gen_random_uuid(), now(), '{}', 'callback')`)

	s := start(t, Config{DatabaseURL: url, SpoolDir: dir, SpoolMinFreeBytes: -1})
	response := open(t, s.Admin+"/v1/idle", key)
	var got struct{ Behind []string }
	if err := json.NewDecoder(response.Body).Decode(&got); err != nil || response.StatusCode != http.StatusServiceUnavailable {
		t.Fatal(response.StatusCode, err)
	}
	if len(got.Behind) != 2 || got.Behind[0] != "spool: 1 callbacks" || !strings.HasPrefix(got.Behind[1], "roll-ups: ") {
		t.Errorf("%q", got.Behind)
	}
}
