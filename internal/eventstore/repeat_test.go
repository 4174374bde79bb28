package eventstore

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"upcall/internal/dbtest"
	"upcall/internal/event"
)

func withUpload(e *event.Event) *event.Event {
	e.UploadID = uuid.NullUUID{UUID: uuid.New(), Valid: true}
	return e
}

// TestRepeatOfBeforeTokens checks that events that were recorded without an upload id in
// callback_ids, because tokens were off or the program was older, are still found.
func TestRepeatOfBeforeTokens(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	r := newRecorder(t, Config{Pool: pool})
	before, other := smallEvent(), withUpload(smallEvent())
	record(t, r, before, false)
	again := *before
	record(t, r, withUpload(&again), true)
	record(t, r, other, false)
	wantCount(t, pool, 2)
	for _, e := range []*event.Event{before, &again, other} {
		if found, err := r.Find(t.Context(), e.ID, e.UploadID); err != nil || !found {
			t.Errorf("found %t, %v", found, err)
		}
	}

	// A repeat is not refused, although its upload is revoked.
	l := newLedger(t, Config{Pool: pool})
	u := smallUpload()
	u.ID = again.UploadID.UUID
	issue(t, l, u)
	revoke(t, l, u.ID)
	record(t, r, &again, true)
	wantRefused(t, pool, 0)
}

// TestFoldKeepsAcknowledgement checks that a callback in one batch with its copy from the spool
// counts as acknowledged, whichever came first.
func TestFoldKeepsAcknowledgement(t *testing.T) {
	t.Parallel()
	spooled, other := smallEvent(), smallEvent()
	spooled.Acknowledged = true
	live := *spooled
	live.Acknowledged = false
	for _, order := range [][]*event.Event{{&live, spooled, other}, {spooled, &live, other}, {other, spooled, spooled, &live}} {
		var batch []*request[eventRow]
		for _, e := range order {
			row, err := newEventRow(e)
			if err != nil {
				t.Fatal(err)
			}
			batch = append(batch, &request[eventRow]{id: e.ID, row: row})
		}
		got := make(map[uuid.UUID]bool)
		for _, q := range eventKind.fold(batch) {
			got[q.id] = q.row.Acknowledged
		}
		if diff := cmp.Diff(map[uuid.UUID]bool{spooled.ID: true, other.ID: false}, got); diff != "" {
			t.Errorf("acknowledged (-want +got):\n%s", diff)
		}
	}
}
