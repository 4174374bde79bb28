package intake

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/callbackspec"
	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/recorder"
)

// TestRevoked checks that callbacks of a revoked upload are refused, and that the refusals are
// kept without the token. A callback recorded before keeps its answer.
func TestRevoked(t *testing.T) {
	t.Parallel()
	o, pool := newOSS(t), dbtest.Pool(t, eventstore.Open)
	s := serve(t, o, pool, nil)
	ledger, err := eventstore.NewLedger(eventstore.Config{Pool: dbtest.Beside(t, pool, eventstore.OpenRecorder)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ledger.Close)
	id, token := mint(t, "demo", "a.txt", noon.Add(time.Hour))
	err = ledger.Issue(t.Context(), eventstore.IssuedUpload{
		ID: id, IssuedAt: noon, ExpiresAt: noon.Add(time.Hour), Bucket: "demo", Object: "a.txt",
	})
	if err != nil {
		t.Fatal(err)
	}
	u := upload{bucket: "demo", object: "a.txt", token: token}
	send := func(reqID string) answered {
		u.reqID = reqID
		return do(t, o.request(t, s.Public, path, string(callbackspec.Form), u.body(t, callbackspec.Form)))
	}

	first := send("R1")
	if first.Code != http.StatusOK || first.Duplicate {
		t.Fatalf("before it is revoked: got %d %s", first.Code, first.Raw)
	}
	if err := eventstore.NewUploads(pool).Revoke(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if again := send("R1"); again.Code != http.StatusOK || !again.Duplicate || again.EventID != first.EventID {
		t.Errorf("the first callback again: got %d %s", again.Code, again.Raw)
	}
	for range 2 {
		got := send("R2")
		if got.Code != http.StatusForbidden || got.Error.Code != "bad_token" || !strings.Contains(got.Error.Message, "revoked") {
			t.Errorf("after it was revoked: got %d %s", got.Code, got.Raw)
		}
	}
	if n := count(t, pool); n != 1 {
		t.Errorf("%d events, want 1", n)
	}
	rows, err := pool.Query(t.Context(), `SELECT concat_ws(' ', reason, host(source_addr), bucket, object_key, upload_id,
		refused_at AT TIME ZONE 'UTC') FROM upcall.refused_callbacks`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var refused []string
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			t.Fatal(err)
		}
		refused = append(refused, line)
	}
	if diff := cmp.Diff([]string{"token_revoked 127.0.0.1 demo a.txt " + id.String() + " 2026-11-22 12:00:00"}, refused); diff != "" {
		t.Error(diff)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if log := s.log.String(); !strings.Contains(log, `"reason":"token_revoked"`) || strings.Contains(log, token) {
		t.Errorf("want token_revoked but not the token in the log: %s", log)
	}
}

// TestOverused checks that a token does not make any number of rows.
func TestOverused(t *testing.T) {
	t.Parallel()
	o, pool := newOSS(t), dbtest.Pool(t, eventstore.Open)
	store, err := eventstore.NewRecorder(eventstore.Config{Pool: dbtest.Beside(t, pool, eventstore.OpenRecorder), MaxEvents: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	s := serve(t, o, pool, func(c *Config) {
		c.Recorder = recorder.New(store, nil, recorder.Config{Logger: c.Logger})
	})
	u := issued(t, "a.txt", "")
	for _, tt := range []struct {
		reqID     string
		code      int
		duplicate bool
	}{{"R1", 200, false}, {"R2", 200, false}, {"R3", 403, false}, {"R1", 200, true}, {"R3", 403, false}, {"R2", 200, true}} {
		u.reqID = tt.reqID
		got := do(t, o.request(t, s.Public, path, string(callbackspec.Form), u.body(t, callbackspec.Form)))
		if got.Code != tt.code || got.Duplicate != tt.duplicate || tt.code == 403 && got.Error.Code != "bad_token" {
			t.Errorf("%s: got %d %s", tt.reqID, got.Code, got.Raw)
		}
	}
	if n := count(t, pool); n != 2 {
		t.Errorf("%d events, want 2", n)
	}
}
