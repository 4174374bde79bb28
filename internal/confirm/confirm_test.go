package confirm

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"upcall/internal/event"
	"upcall/internal/testing/wait"
)

// TestOutcomes: what becomes of events, each with another history of its object.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rollups(t)
	worker, _ := w.receiver(t)
	w.begun(t)
	histories := map[string]struct {
		history func(key string) // records one event or several
		want    []string         // outcomes of the key's events
		found   []string
	}{
		"as it says": {func(key string) { w.upload(t, key) }, []string{"confirmed object"}, nil},
		"nothing said": {func(key string) {
			e := w.put(t, key, "x")
			e.Callback.Size, e.Callback.ETag, e.Callback.CRC64 = nil, "", nil
			w.record(t, "upload_events", e)
		}, []string{"confirmed object"}, nil},
		"another spelling": {func(key string) {
			e := w.put(t, key, "x")
			e.Callback.ETag = `"` + strings.ToLower(e.Callback.ETag) + `"`
			w.record(t, "upload_events", e)
		}, []string{"confirmed object"}, nil},
		"claimed size wrong": {func(key string) {
			e := w.put(t, key, "x")
			e.Callback.Size = new(int64(1 << 40))
			w.record(t, "upload_events", e)
		}, []string{"disputed object"}, []string{`disputed ["size"]`}},
		"claimed etag wrong": {func(key string) {
			e := w.put(t, key, "x")
			e.Callback.ETag = "D41D8CD98F00B204E9800998ECF8427E"
			w.record(t, "upload_events", e)
		}, []string{"disputed object"}, []string{`disputed ["etag"]`}},
		"claimed crc64 wrong": {func(key string) {
			e := w.put(t, key, "x")
			*e.Callback.CRC64++
			w.record(t, "upload_events", e)
		}, []string{"disputed object"}, []string{`disputed ["crc64"]`}},
		"changed after the callback": {func(key string) {
			e := w.put(t, key, "as it was")
			w.put(t, key, "and is")
			w.record(t, "upload_events", e)
		}, []string{"disputed object"}, []string{`disputed ["size", "etag", "crc64"]`}},
		"deleted": {func(key string) {
			e := w.put(t, key, "x")
			w.delete(t, key)
			w.record(t, "upload_events", e)
		}, []string{"gone object"}, []string{"gone []"}},
		"overwritten": {func(key string) {
			e := w.put(t, key, "first")
			w.record(t, "upload_events", e, w.put(t, key, "second one"))
		}, []string{"confirmed object", "overwritten object"}, nil},
		"overwritten and deleted": {func(key string) {
			e := w.put(t, key, "first")
			w.record(t, "upload_events", e, w.put(t, key, "second one"))
			w.delete(t, key)
		}, []string{"gone object", "overwritten object"}, []string{"gone []"}},
		"overwritten and changed": {func(key string) {
			e := w.put(t, key, "first")
			w.record(t, "upload_events", e, w.put(t, key, "second one"))
			w.put(t, key, "and more")
		}, []string{"disputed object", "overwritten object"}, []string{`disputed ["size", "etag", "crc64"]`}},
		"called back in the other order": {func(key string) {
			first, second := w.put(t, key, "first"), w.put(t, key, "second one")
			first.ReceivedAt, second.ReceivedAt = second.ReceivedAt, first.ReceivedAt
			w.record(t, "upload_events", second, first)
		}, []string{"confirmed object", "overwritten object"}, nil},
		"the same after an earlier upload": {func(key string) {
			earlier, first, second := w.put(t, key, "earlier"), w.put(t, key, "first"), w.put(t, key, "second one")
			first.ReceivedAt, second.ReceivedAt = second.ReceivedAt, first.ReceivedAt
			w.record(t, "upload_events", earlier, second, first)
		}, []string{"confirmed object", "overwritten object", "overwritten object"}, nil},
		"told twice": {func(key string) { // the same upload: neither overwrites the other
			e := w.put(t, key, "x")
			w.put(t, key, "another")
			again := *e
			again.ID, again.ReceivedAt = uuid.New(), e.ReceivedAt.Add(time.Millisecond)
			w.record(t, "upload_events", e, &again)
		}, []string{"disputed object", "disputed object"},
			[]string{`disputed ["size", "etag", "crc64"]`, `disputed ["size", "etag", "crc64"]`}},
		"notified": {func(key string) {
			e := w.put(t, key, "x")
			w.notify(t, e)
			w.delete(t, key) // no one looks
			w.record(t, "upload_events", e)
		}, []string{"confirmed notification"}, nil},
		"notified of something else": {func(key string) {
			e := w.put(t, key, "x")
			other := *e
			other.Callback.Size = new(int64(7))
			w.notify(t, &other)
			w.record(t, "upload_events", e)
		}, []string{"confirmed object"}, nil},
		"notified of too little": {func(key string) {
			e := w.put(t, key, "x")
			other := *e
			other.Callback.Size, other.Callback.CRC64 = nil, nil
			w.notify(t, &other)
			w.record(t, "upload_events", e)
		}, []string{"confirmed object"}, nil},
		"by a notification": {func(key string) {
			e := w.put(t, key, "x")
			e.Source = event.SourceNotification
			w.delete(t, key)
			w.record(t, "upload_events", e)
		}, []string{"confirmed notification"}, nil},
		"by a listing": {func(key string) {
			e := w.put(t, key, "x")
			e.Source = event.SourceReconcile
			w.delete(t, key)
			w.record(t, "upload_events", e)
		}, []string{"confirmed listing"}, nil},
		"no bucket": {func(key string) {
			e := w.put(t, key, "x")
			e.Callback.Bucket = ""
			w.record(t, "upload_events", e)
		}, nil, nil},
	}
	var want, found []string
	for key, h := range histories {
		h.history(key)
		for _, outcome := range h.want {
			want = append(want, key+" "+outcome)
		}
		for _, finding := range h.found {
			found = append(found, key+" "+finding)
		}
	}
	wait.Until(t, "all but those that differ have an outcome", func() bool {
		return w.count(t, "confirmations")+w.count(t, "confirm_retries") == len(want)
	})
	if n := w.count(t, "findings WHERE kind = 'disputed'"); n > 0 {
		t.Errorf("%d uploads are disputed at the first look", n)
	}
	w.clock.forward(DefaultGrace - time.Second)
	wait.Until(t, "it looks again and again", func() bool { time.Sleep(30 * time.Millisecond); return true })
	if n := w.count(t, "findings WHERE kind = 'disputed'"); n > 0 {
		t.Errorf("%d uploads are disputed before the grace is over", n)
	}
	w.clock.forward(time.Second)
	if diff := cmp.Diff(sorted(want...), w.waitFor(t, len(want))); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(sorted(found...), w.findings(t)); diff != "" {
		t.Error(diff)
	}
	removed := w.lines(t, `SELECT u.object_key || ' ' || r.source FROM upcall.uploads u JOIN upcall.removals r USING (bucket, object_key)
		WHERE u.removed_at IS NOT NULL ORDER BY 1`)
	if diff := cmp.Diff([]string{"deleted confirm", "overwritten and deleted confirm"}, removed); diff != "" {
		t.Errorf("removed: %s", diff)
	}
	if n := w.count(t, "confirm_retries"); n > 0 {
		t.Errorf("%d still wait", n)
	}
	wait.Until(t, "it is idle", func() bool {
		behind, err := worker.Behind(t.Context())
		return err == nil && len(behind) == 0
	})

	var text []byte
	err := w.pool.QueryRow(t.Context(), `SELECT found FROM upcall.findings JOIN upcall.upload_events e ON e.id = event_id
		WHERE object_key = 'changed after the callback'`).Scan(&text)
	var got finding
	if err == nil {
		err = json.Unmarshal(text, &got)
	}
	if err != nil || *got.Size != int64(len("and is")) || len(*got.ETag) != 32 || got.CRC64 == nil || got.LastModified.IsZero() {
		t.Errorf("found %s, %v", text, err)
	}
}

// notify writes the notification of an upload.
func (w *world) notify(t *testing.T, e *event.Event) {
	t.Helper()
	n := *e
	n.Source = event.SourceNotification
	n.ID = event.RecoveredID(n.Source, e.Callback.Bucket, e.Callback.Object, e.Callback.RequestID, "", time.Time{})
	w.exec(t, "ALTER TABLE upcall.notifications ALTER COLUMN noticed_at SET DEFAULT now()")
	w.record(t, "notifications", &n)
}

// TestLateCallback: the callback of the upload that overwrote another one comes between the two looks, or
// the object is put back.
func TestLateCallback(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rollups(t)
	w.receiver(t)
	w.begun(t)
	var late []*event.Event
	for _, key := range []string{"late", "never", "put back"} {
		e := w.put(t, key, "first")
		late = append(late, w.put(t, key, "second one"))
		w.record(t, "upload_events", e)
	}
	wait.Until(t, "all wait", func() bool { return w.count(t, "confirm_retries WHERE differs AND due_at IS NOT NULL") == 3 })
	w.record(t, "upload_events", late[0])
	w.put(t, "put back", "first")
	w.waitFor(t, 1) // the late one itself
	w.clock.forward(DefaultGrace)
	want := []string{"late confirmed object", "late overwritten object", "never disputed object", "put back confirmed object"}
	if diff := cmp.Diff(want, w.waitFor(t, 4)); diff != "" {
		t.Error(diff)
	}
}

// TestRollupsAreBehind: without roll-ups that have read what is in the log, nothing is found.
func TestRollupsAreBehind(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.receiver(t)
	w.begun(t)
	e := w.put(t, "deleted", "x")
	w.delete(t, "deleted")
	w.record(t, "upload_events", e)
	wait.Until(t, "it waits for them", func() bool { return w.count(t, "confirm_retries WHERE problem = 'roll-ups are behind'") == 1 })
	if n := w.count(t, "confirmations"); n > 0 {
		t.Errorf("%d outcomes", n)
	}
	w.rollups(t)
	w.clock.forward(rollupAgain)
	if diff := cmp.Diff([]string{"deleted gone object"}, w.waitFor(t, 1)); diff != "" {
		t.Error(diff)
	}
}

// TestWait: events are looked at when they are so old, so that notifications can come first.
func TestWait(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rollups(t)
	w.receiver(t, func(c *Config) { c.Wait = 2 * time.Minute })
	w.begun(t)
	w.gate.Between(func(rw http.ResponseWriter, r *http.Request, serve http.Handler) { serve.ServeHTTP(rw, r) })
	notified, alone := w.upload(t, "notified")[0], w.upload(t, "alone")
	time.Sleep(50 * time.Millisecond)
	if n := w.count(t, "confirmations"); n > 0 || w.gate.Count(http.MethodHead) > 0 {
		t.Errorf("%d outcomes before the time, and %d requests", n, w.gate.Count(http.MethodHead))
	}
	w.notify(t, notified)
	w.clock.forward(2 * time.Minute)
	if diff := cmp.Diff([]string{"alone confirmed object", "notified confirmed notification"}, w.waitFor(t, 2)); diff != "" {
		t.Error(diff)
	}
	if n := w.gate.Count(http.MethodHead); n != len(alone) {
		t.Errorf("%d objects were asked for, want %d", n, len(alone))
	}
}

// TestKeysAreAskedForAsTheyAre: odd keys arrive at OSS.
func TestKeysAreAskedForAsTheyAre(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rollups(t)
	w.receiver(t)
	w.begun(t)
	keys := []string{"a b+c%20", "ä/上/😀", "?x=1&y", "<&>\"'"}
	w.upload(t, keys...)
	for _, line := range w.waitFor(t, len(keys)) {
		if !strings.HasSuffix(line, " confirmed object") {
			t.Error(line)
		}
	}
}
