package spool

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"upcall/internal/callbackspec"
	"upcall/internal/event"
	"upcall/internal/kept"
	"upcall/internal/testing/fallbacktest"
)

// version1 returns a directory from a receiver that wrote records of version 1.
func version1(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile("testdata/v1/spool.db")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, fileName), content, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// version1Events returns the events in it: those that wait, in order, and the dead letter.
func version1Events() (waiting []event.Event, dead event.Event) {
	id := func(name string) uuid.UUID { return uuid.NewSHA1(uuid.NameSpaceURL, []byte(name)) }
	waiting = []event.Event{{
		ID: id("full"), ReceivedAt: epoch.Add(time.Millisecond + 789), Source: "callback", Acknowledged: true,
		UploadID:   uuid.NullUUID{UUID: id("full upload"), Valid: true},
		SourceAddr: netip.MustParseAddr("198.51.100.7"),
		Callback: callbackspec.Callback{
			Bucket: "demo", Object: `фото/日本/<1> & "2".jpg`, ETag: "D8E8FCA2DC0F896FD7CB4CB0031BA249",
			Size: new(int64(1<<63 - 1)), MimeType: "image/jpeg", ImageHeight: new(int32(768)), ImageWidth: new(int32(1<<31 - 1)),
			ImageFormat: "jpg", CRC64: new(uint64(1<<64 - 1)), ContentMD5: "2Oj8otwPiW/Xy0ywAxuiSQ==", VPCID: "t4nlw426y44rd3iq4xxxx",
			ClientIP: netip.MustParseAddr("2001:db8::1"), RequestID: "R1", Operation: "PutObject",
			Vars: map[string]json.RawMessage{
				"user":      json.RawMessage(`{"id":12345678901234567890,"name":"Zoë \u003cz@example.com\u003e"}`),
				"названиe":  json.RawMessage(`"лето  2026"`),
				"precise":   json.RawMessage(`3.14159265358979323846264338327950288`),
				"huge":      json.RawMessage(`-1e400`),
				"nothing":   json.RawMessage(`null`),
				"list":      json.RawMessage(`[1,true,[]]`),
				"":          json.RawMessage(`""`),
				"surrogate": json.RawMessage(`"\ud83d\ude00 😀"`),
			},
		},
	}, {
		ID: id("bare"), ReceivedAt: time.Date(2026, 11, 22, 13, 0, 0, 0, time.UTC), Acknowledged: true,
	}, {
		ID: id("zero"), ReceivedAt: time.Date(2026, 11, 22, 14, 0, 0, 1000, time.UTC), Source: "callback", Acknowledged: true,
		SourceAddr: netip.MustParseAddr("198.51.100.7"),
		Callback: callbackspec.Callback{
			Object: "zero", Size: new(int64(0)), CRC64: new(uint64(0)), ImageWidth: new(int32(0)), ImageHeight: new(int32(0)),
			ClientIP: netip.MustParseAddr("203.0.113.7"), Operation: "PostObject",
		},
	}, {
		ID: id("zone"), ReceivedAt: time.Date(2026, 11, 22, 20, 0, 0, 999999999, time.UTC), Source: "callback", Acknowledged: true,
		Callback: callbackspec.Callback{Bucket: "demo", Object: "zone\t\n\u2028", ETag: "ETAG", Operation: "CompleteMultipartUpload"},
	}}
	return waiting, event.Event{
		ID: id("dead"), ReceivedAt: epoch.Add(789), Source: "callback", Acknowledged: true,
		UploadID:   uuid.NullUUID{UUID: id("dead upload"), Valid: true},
		SourceAddr: netip.MustParseAddr("2001:db8::53"),
		Callback: callbackspec.Callback{
			Bucket: "demo", Object: "dead.bin", Size: new(int64(0)), RequestID: "R-dead",
			Vars: map[string]json.RawMessage{"bad": json.RawMessage(`"\u0000"`)},
		},
	}
}

// TestVersion1: an upgrade does not lose spooled events.
func TestVersion1(t *testing.T) {
	t.Parallel()
	dir := version1(t)
	waiting, dead := version1Events()
	var entries []kept.Entry
	if err := Read(t.Context(), dir, func(e kept.Entry) error { entries = append(entries, e); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(waiting)+1 {
		t.Fatalf("%d entries, want %d", len(entries), len(waiting)+1)
	}
	if e := entries[len(waiting)]; e.ID != dead.ID || e.Reason != "database cannot hold this row" {
		t.Errorf("dead letter: %+v", e)
	}
	var line struct {
		EventID   uuid.UUID `json:"event_id"`
		ID        uuid.UUID
		ObjectKey string `json:"object_key"`
		Object    string
		Rejected  struct{ Reason string }
	}
	err := json.Unmarshal(entries[len(waiting)].JSON, &line)
	if err != nil || line.EventID != dead.ID || line.ID != dead.ID || line.ObjectKey != "dead.bin" || line.Object != "dead.bin" ||
		line.Rejected.Reason != "database cannot hold this row" {
		t.Errorf("the dead letter is shown as %s, %v", entries[len(waiting)].JSON, err)
	}
	c, _ := config(dir)
	s := open(t, c)
	m := new(fallbacktest.Memory)
	moveAll(t, s, m, 1)
	if err := s.Retry([]uuid.UUID{dead.ID}); err != nil {
		t.Fatal(err)
	}
	moveAll(t, s, m, 1)
	dead.ReceivedAt = epoch // Retry writes it again, with microseconds
	var got []event.Event
	for _, id := range m.Order {
		got = append(got, m.Events[id])
	}
	if diff := cmp.Diff(append(waiting, dead), got, sameEvent); diff != "" {
		t.Errorf("events (-put +moved):\n%s", diff)
	}
}
