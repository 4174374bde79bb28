package event_test

import (
	"fmt"
	"testing"
	"time"

	"upcall/internal/callbackspec"
	"upcall/internal/event"
)

// TestStoredAt reads the times of genuine callbacks' request ids, and falls back on everything else.
func TestStoredAt(t *testing.T) {
	t.Parallel()
	genuine := time.Date(2018, 9, 15, 10, 24, 12, 0, time.UTC) // its Date
	received := genuine.Add(1500 * time.Millisecond)
	of := func(at time.Time) string { return fmt.Sprintf("%08X3FDA3C2F1A7A3F12", at.Unix()) }
	for name, test := range map[string]struct {
		source   event.Source
		id       string
		received time.Time
		want     time.Time
	}{
		"genuine callback":           {event.SourceCallback, "5B9CDDCC0000000000000000", received, genuine},
		"another":                    {event.SourceCallback, "5CF3E7820000000000000000", time.Date(2019, 6, 2, 15, 13, 7, 0, time.UTC), time.Date(2019, 6, 2, 15, 13, 6, 0, time.UTC)},
		"no source is a callback":    {"", of(genuine), received, genuine},
		"small letters":              {event.SourceCallback, "5b9cddcc0000000000000000", received, genuine},
		"a day before":               {event.SourceCallback, of(genuine.Add(-24*time.Hour + 2*time.Second)), received, genuine.Add(-24*time.Hour + 2*time.Second)},
		"more than a day before":     {event.SourceCallback, of(genuine.Add(-24 * time.Hour)), received, received},
		"more than a day after":      {event.SourceCallback, of(genuine.Add(25 * time.Hour)), received, received},
		"a clock that is ahead":      {event.SourceCallback, of(genuine.Add(time.Minute)), received, genuine.Add(time.Minute)},
		"no request id":              {event.SourceCallback, "", received, received},
		"not hexadecimal":            {event.SourceCallback, "5B9CDDCG0000000000000000", received, received},
		"a sign":                     {event.SourceCallback, "+B9CDDCC0000000000000000", received, received},
		"another length":             {event.SourceCallback, "5B9CDDCC", received, received},
		"a notification has OSS's":   {event.SourceNotification, of(genuine), received, received},
		"an object found in listing": {event.SourceReconcile, "", received, received},
	} {
		e := event.Event{Source: test.source, ReceivedAt: test.received, Callback: callbackspec.Callback{RequestID: test.id}}
		if got := e.StoredAt(); !got.Equal(test.want) {
			t.Errorf("%s: got %s, want %s", name, got.UTC(), test.want)
		}
	}
}

func FuzzStoredAt(f *testing.F) {
	f.Add("5B9CDDCC0000000000000000")
	f.Add("ÿB9CDDCC000000000000000")
	f.Fuzz(func(t *testing.T, id string) {
		received := time.Date(2018, 9, 15, 10, 24, 12, 0, time.UTC)
		e := event.Event{ReceivedAt: received, Callback: callbackspec.Callback{RequestID: id}}
		if got := e.StoredAt(); got.Sub(received).Abs() > 24*time.Hour {
			t.Errorf("%q is of %s", id, got)
		}
	})
}
