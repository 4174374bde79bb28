package eventstore

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/dbtest"
)

const allRemovals = `SELECT concat_ws(' ', bucket, object_key, to_char(removed_at AT TIME ZONE 'UTC', 'HH24:MI'), source)
	FROM upcall.removals ORDER BY 1`

func TestNoteRemovals(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	note := func(removals ...Removal) {
		t.Helper()
		if err := NoteRemovals(t.Context(), pool, removals); err != nil {
			t.Fatal(err)
		}
	}
	noon := time.Date(2026, 11, 5, 12, 0, 0, 0, time.UTC)
	note()
	note(Removal{"photos", "a", noon, "notification"},
		Removal{"photos", "b", noon, "notification"}, Removal{"photos", "b", noon.Add(time.Hour), "reconcile"}, // twice in one call
		Removal{"photos", "b", noon.Add(time.Minute), "confirm"},
		Removal{"", "a", noon, "confirm"}, Removal{"photos", "", noon, "confirm"}, // no object has these names
		Removal{"photos", "nul\x00", noon, "confirm"}, Removal{"photos", "\xff", noon, "confirm"},
		Removal{"photos", strings.Repeat("k", 4000), noon, "confirm"})
	note(Removal{"photos", "a", noon.Add(-time.Minute), "confirm"}, // found out later
		Removal{"photos", "B", noon, "confirm"}, Removal{"images", "a", noon, "confirm"},
		Removal{"photos", "b", noon.Add(2 * time.Hour), "notification"})
	want := []string{"images a 12:00 confirm", "photos B 12:00 confirm", "photos a 12:00 notification", "photos b 14:00 notification"}
	got := lines(t, pool, strings.Replace(allRemovals, "ORDER BY 1", `ORDER BY concat_ws(' ', bucket, object_key) COLLATE "C"`, 1))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestNoteManyRemovalsAtOnce has writers that name the same objects in different orders.
func TestNoteManyRemovalsAtOnce(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	noon := time.Date(2026, 11, 5, 12, 0, 0, 0, time.UTC)
	var group sync.WaitGroup
	for writer := range 4 {
		group.Go(func() {
			var removals []Removal
			for i := range 2*removalStep + 1 {
				if writer%2 == 1 {
					i = 2*removalStep - i
				}
				key := strings.Repeat("k", i%7+1) + string(rune('a'+i%26)) + time.Duration(i).String()
				removals = append(removals, Removal{"photos", key, noon.Add(time.Duration(writer) * time.Minute), "reconcile"})
			}
			if err := NoteRemovals(t.Context(), pool, removals); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	wantRow(t, pool, 2*removalStep+1, "SELECT count(*)::int FROM upcall.removals WHERE removed_at = '2026-11-05 12:03Z'")
}

// TestRemovedUploads shows a removal of the current upload only.
func TestRemovedUploads(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	noon := time.Date(2026, 11, 5, 12, 0, 0, 0, time.UTC)
	for key, received := range map[string]time.Time{
		"before": noon.Add(time.Second), "at": noon, "after": noon.Add(-time.Second), "other": noon,
	} {
		executeArgs(t, pool, `INSERT INTO upcall.rollup_objects (generation, bucket, object_key, uploads, sources, first_at, first_id,
			first_mime_type, first_source, received_at, event_id, hourly_mime_type, source, removed_at)
			VALUES (0, 'photos', $1, 1, 1, $2, gen_random_uuid(), '', 'callback', $2, gen_random_uuid(), '', 'callback', now())`,
			key, received)
	}
	err := NoteRemovals(t.Context(), pool, []Removal{{"photos", "before", noon, "confirm"}, {"photos", "at", noon, "confirm"},
		{"photos", "after", noon, "confirm"}, {"images", "other", noon, "confirm"}, {"photos", "never uploaded", noon, "reconcile"}})
	if err != nil {
		t.Fatal(err)
	}
	got := lines(t, pool, `SELECT concat_ws(' ', object_key, to_char(removed_at AT TIME ZONE 'UTC', 'HH24:MI'))
		FROM upcall.uploads ORDER BY 1`)
	if diff := cmp.Diff([]string{"after 12:00", "at 12:00", "before", "other"}, got); diff != "" {
		t.Error(diff)
	}
}

// TestRemovedByAnotherClock has receivers whose clocks differ from OSS's, which tells of removals.
func TestRemovedByAnotherClock(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	noon := time.Date(2026, 11, 5, 12, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		id                string        // the request's, "" for one that began at noon
		source            string        // of the upload
		received, removed time.Duration // since noon
		by                string        // what told of the removal
		want              bool
	}{
		"same clock, removed":              {"", "callback", 300 * time.Millisecond, 400 * time.Millisecond, "notification", true},
		"same clock, removed before":       {"", "callback", 300 * time.Millisecond, 200 * time.Millisecond, "notification", false},
		"ahead, removed":                   {"", "callback", 2 * time.Second, time.Second, "notification", true},
		"ahead, removed before":            {"", "callback", 2 * time.Second, -time.Millisecond, "notification", false},
		"behind, removed":                  {"", "callback", -2 * time.Second, time.Second, "notification", true},
		"behind, removed before":           {"", "callback", -2 * time.Second, -time.Second, "notification", false},
		"a long upload, removed before":    {"", "callback", 11 * time.Second, 5 * time.Second, "notification", false},
		"far behind":                       {"", "callback", -11 * time.Second, -10 * time.Second, "notification", true},
		"ahead, found out by our own":      {"", "callback", 2 * time.Second, time.Second, "confirm", false},
		"behind, found out by our own":     {"", "callback", -2 * time.Second, -time.Second, "confirm", true},
		"notified of, removed before":      {"", "notification", 2 * time.Second, time.Second, "notification", false},
		"no such request id":               {"G8EF8A4000000000000000AA", "callback", 2 * time.Second, time.Second, "notification", false},
		"a short request id":               {"690B3B40", "callback", 2 * time.Second, time.Second, "notification", false},
		"a request id of the last century": {"00000000000000000000000A", "callback", 2 * time.Second, time.Second, "notification", false},
		"a request id of the next":         {"FFFFFFFF000000000000000A", "callback", 2 * time.Second, 3 * time.Second, "notification", true},
	} {
		id := tt.id
		if id == "" {
			id = fmt.Sprintf("%08X0000000000000000", noon.Unix())
		}
		executeArgs(t, pool, `INSERT INTO upcall.rollup_objects (generation, bucket, object_key, uploads, sources, first_at, first_id,
			first_mime_type, first_source, received_at, event_id, hourly_mime_type, source, request_id)
			VALUES (0, 'photos', $1, 1, 1, $2, gen_random_uuid(), '', $3, $2, gen_random_uuid(), '', $3, $4)`,
			name, noon.Add(tt.received), tt.source, id)
		if err := NoteRemovals(t.Context(), pool, []Removal{{"photos", name, noon.Add(tt.removed), tt.by}}); err != nil {
			t.Fatal(err)
		}
		got := lines(t, pool, `SELECT object_key || ' ' || (removed_at IS NOT NULL) FROM upcall.uploads WHERE object_key = '`+name+`'`)
		if want := []string{fmt.Sprintf("%s %t", name, tt.want)}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
