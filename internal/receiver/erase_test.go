package receiver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/callbackspec"
	"upcall/internal/event"
	"upcall/internal/spool"
	"upcall/internal/testing/logtest"
)

// TestSpoolIsErased gives the worker requests as PostgreSQL returns them: late, again, and not at all.
func TestSpoolIsErased(t *testing.T) {
	t.Parallel()
	var log logtest.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "spool.db.damaged-20261127T120000Z"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	queue, err := spool.Open(t.Context(), spool.Config{Dir: dir, MinFreeBytes: -1, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	defer queue.Close()
	now := time.Now()
	put := func(uid string) {
		t.Helper()
		_, err := queue.Put(t.Context(), &event.Event{ID: uuid.New(), ReceivedAt: now.Add(-time.Hour), Callback: callbackspec.Callback{
			Bucket: "demo", Vars: map[string]json.RawMessage{"uid": json.RawMessage(`"` + uid + `"`)}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	want := func(uid string, there bool) {
		t.Helper()
		content, err := os.ReadFile(filepath.Join(dir, "spool.db"))
		if err != nil || bytes.Contains(content, []byte(uid)) != there {
			t.Errorf("%s is in the spool: %v (%v)", uid, !there, err)
		}
	}
	request := func(uid string, before time.Time) event.Erasure {
		return event.Erasure{Before: before, Variable: "uid", Salt: []byte(uid), Digest: event.ErasureDigest([]byte(uid), uid)}
	}
	var there []event.Erasure
	var failed error
	var calls int
	x := &fallbackEraser{queue: queue, name: "spool", logger: logger, requests: func(_ context.Context, since time.Time) (found []event.Erasure, err error) {
		calls++
		for _, r := range there {
			if r.Before.After(since) {
				found = append(found, r)
			}
		}
		return found, failed
	}}
	once := func() {
		t.Helper()
		if err := x.once(t.Context()); !errors.Is(err, failed) {
			t.Fatal(err)
		}
	}
	for _, uid := range []string{"first-user", "second-user", "third-user"} {
		put(uid)
	}
	once()
	want("first-user", true)
	there = append(there, request("second-user", now))
	failed = errors.New("away")
	once()
	want("second-user", true)
	failed = nil
	once()
	want("second-user", false)
	// One that was asked for before, but was committed later.
	there = append(there, request("first-user", now.Add(-10*time.Second)))
	once()
	want("first-user", false)
	want("third-user", true)
	put("second-user") // which is still known
	want("second-user", false)
	for range 3 {
		once()
	}
	if n := strings.Count(log.String(), "spool erased on request"); n != 2 {
		t.Errorf("erased %d times:\n%s", n, log.String())
	}
	if !strings.Contains(log.String(), "damaged spool files") {
		t.Errorf("nothing says that there is a damaged file:\n%s", log.String())
	}
}
