package webhook

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"upcall/internal/callbackspec"
	"upcall/internal/event"
)

func anEvent() *event.Event {
	return &event.Event{
		ID: uuid.MustParse("11111111-2222-3333-4444-555555555555"), ReceivedAt: time.Date(2026, 11, 27, 8, 9, 10, 123456789, time.UTC),
		Callback: callbackspec.Callback{Bucket: "photos", Object: "a/é.jpg", MimeType: "image/jpeg", Size: new(int64(7)),
			Vars: map[string]json.RawMessage{"uid": json.RawMessage(`"7"`), "n": json.RawMessage(`12`)}},
	}
}

const bodyStart = `{"specversion":"1.0","id":"11111111-2222-3333-4444-555555555555","source":"/oss/photos",` +
	`"type":"upcall.upload.recorded.v1","subject":"a/é.jpg","time":"2026-11-27T08:09:10.123456Z","datacontenttype":"application/json","data":`

func TestBody(t *testing.T) {
	t.Parallel()
	e := anEvent()
	data, err := e.AppendJSON(nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := NewMessage(e).Body()
	if diff := cmp.Diff(bodyStart+string(data)+"}", string(body)); err != nil || diff != "" {
		t.Errorf("%v, body (-want +got):\n%s", err, diff)
	}

	found := (&Message{ID: uuid.Max, Kind: Gone, At: e.ReceivedAt, Event: e, Found: json.RawMessage(`{"status":404}`)})
	var got struct {
		ID, Type string
		Data     struct {
			EventID uuid.UUID `json:"event_id"`
			Found   struct{ Status int }
		}
	}
	body, err = found.Body()
	if err != nil || json.Unmarshal(body, &got) != nil || got.ID != uuid.Max.String() || got.Type != "upcall.upload.gone.v1" ||
		got.Data.EventID != e.ID || got.Data.Found.Status != 404 {
		t.Errorf("%v, %s", err, body)
	}
}

func TestBodySubjectAndSource(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ bucket, key, source, subject string }{
		{"photos", "", "/oss/photos", ""},
		{"", "k", "/oss/", "k"},
		{"a b?", "k", "/oss/a%20b%3F", "k"},
		{"photos", "a\r\nb\x00\x7f\u0085c", "/oss/photos", "a%0D%0Ab%00%7F%C2%85c"},
		{"photos", "\ufffe\ufdd0\U0001ffff", "/oss/photos", "%EF%BF%BE%EF%B7%90%F0%9F%BF%BF"},
		{"photos", `q"\ %41 日本`, "/oss/photos", `q"\ %41 日本`},
	} {
		e := anEvent()
		e.Callback.Bucket, e.Callback.Object = tt.bucket, tt.key
		if tt.key != "" {
			e.Callback.Object = tt.key
		}
		m := NewMessage(e)
		var got map[string]json.RawMessage
		body, err := m.Body()
		if tt.key == "a\r\nb\x00\x7f\u0085c" { // no row has NUL, so the event itself has no JSON
			if err == nil {
				t.Error("an event with NUL has a body")
			}
			if s := subject(tt.key); s != tt.subject {
				t.Errorf("subject %q", s)
			}
			continue
		}
		if err != nil || json.Unmarshal(body, &got) != nil {
			t.Fatalf("%q: %v: %s", tt.key, err, body)
		}
		var source, subject string
		json.Unmarshal(got["source"], &source)
		json.Unmarshal(got["subject"], &subject)
		if source != tt.source || subject != tt.subject || (got["subject"] != nil) != (tt.key != "") {
			t.Errorf("%q in %q: source %q, subject %q", tt.key, tt.bucket, source, got["subject"])
		}
	}
}
