package eventstore

import (
	"testing"

	"github.com/google/uuid"

	"upcall/internal/dbtest"
	"upcall/internal/event"
)

// TestRecoverUnderPrefix: two objects of one content that a form under a prefix has stored are two uploads, and what is told
// of one says nothing about the other.
func TestRecoverUnderPrefix(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	u := smallUpload()
	u.Object, u.ByPrefix = "a/", true
	issue(t, newLedger(t, Config{Pool: pool}), u)
	of := func(key, request string) *event.Event {
		e := told(uuid.NullUUID{UUID: u.ID, Valid: true}, "E1", request)
		e.Callback.Object = key
		e.ID = event.RecoveredID(e.Source, e.Callback.Bucket, key, request, "E1", e.ReceivedAt)
		return e
	}
	callback := eventOf(u)
	callback.Callback.Object, callback.Callback.ETag = "a/1", "E1"
	record(t, newRecorder(t, Config{Pool: pool}), callback, false)
	if got := mustRecover(t, pool, of("a/1", "R1"), of("a/2", "R2"), of("a/3", "R3"), of("a/3", "R4")); got[0] || !got[1] || !got[2] || got[3] {
		t.Errorf("recorded %v, want the second and the third", got)
	}
	if got := mustRecover(t, pool, of("a/2", "R5"), of("a/4", "R6")); got[0] || !got[1] {
		t.Errorf("recorded %v, want the last", got)
	}
	// The callback of one of them supersedes that one.
	late := eventOf(u)
	late.Callback.Object, late.Callback.ETag, late.Callback.RequestID = "a/3", "E1", "R7"
	record(t, newRecorder(t, Config{Pool: pool}), late, false)
	var superseded, of3 uuid.UUID
	err := pool.QueryRow(t.Context(), "SELECT "+supersedes+` FROM upcall.upload_events WHERE id = $1`, late.ID).Scan(&superseded)
	if err != nil {
		t.Fatal(err)
	}
	if err := pool.QueryRow(t.Context(), "SELECT event_id FROM upcall.recovered_uploads WHERE object_key = 'a/3'").Scan(&of3); err != nil {
		t.Fatal(err)
	}
	if superseded != of3 {
		t.Errorf("the callback of a/3 supersedes %s, want %s", superseded, of3)
	}
}
