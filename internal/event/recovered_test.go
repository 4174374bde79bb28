package event_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/event"
)

// TestRecoveredID checks what tells recovered uploads apart, and that ids stay what they are: rows of
// earlier versions have them.
func TestRecoveredID(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 22, 10, 30, 0, 0, time.UTC)
	of := func(source event.Source, bucket, key, request, etag string, at time.Time) uuid.UUID {
		return event.RecoveredID(source, bucket, key, request, etag, at)
	}
	told := of(event.SourceNotification, "b", "k", "R1", "E1", at)
	listed := of(event.SourceReconcile, "b", "k", "", "E1", at)
	if got := told.String(); got != "00000000-bbc1-8bff-1e50-bdf478d704bf" {
		t.Errorf("with a request id: %s", got)
	}
	if got := listed.String(); got != "00000000-59a1-028a-82d5-e10b469eb0e7" {
		t.Errorf("without: %s", got)
	}
	for _, id := range []uuid.UUID{told, listed} {
		if id.String() >= event.FirstCallbackID {
			t.Errorf("%s is not before those of callbacks", id)
		}
	}
	for name, test := range map[string]struct {
		id, of uuid.UUID
		same   bool
	}{
		"repeat":                     {of(event.SourceNotification, "b", "k", "R1", "E1", at), told, true},
		"another ETag of a request":  {of(event.SourceNotification, "b", "k", "R1", "E2", at), told, true},
		"another time of a request":  {of(event.SourceNotification, "b", "k", "R1", "E1", at.Add(1)), told, true},
		"another request":            {of(event.SourceNotification, "b", "k", "R2", "E1", at), told, false},
		"another source":             {of(event.SourceReconcile, "b", "k", "R1", "E1", at), told, false},
		"another bucket":             {of(event.SourceNotification, "c", "k", "R1", "E1", at), told, false},
		"another key":                {of(event.SourceNotification, "b", "l", "R1", "E1", at), told, false},
		"a border that moved":        {of(event.SourceNotification, "bk", "", "R1", "E1", at), told, false},
		"a second listing":           {of(event.SourceReconcile, "b", "k", "", `"e1"`, at.In(time.FixedZone("", 3600))), listed, true},
		"another ETag in a listing":  {of(event.SourceReconcile, "b", "k", "", "E2", at), listed, false},
		"another time in a listing":  {of(event.SourceReconcile, "b", "k", "", "E1", at.Add(time.Second)), listed, false},
		"an ETag for the request id": {of(event.SourceReconcile, "b", "k", "E1", "", at), listed, false},
	} {
		if same := test.id == test.of; same != test.same {
			t.Errorf("%s: same is %t", name, same)
		}
	}
}
