package rollup

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/eventstore"
)

func (w *world) add(t testing.TB, at time.Time, key, mime, source, request string) {
	t.Helper()
	w.exec(t, `INSERT INTO upcall.upload_events (id, received_at, bucket, object_key, size, mime_type, source, request_id)
		VALUES (gen_random_uuid(), $1, 'b', $2, 5, $3, $4, nullif($5, ''))`, at, key, mime, source, request)
}

// TestLateFirst: the example of the package's comment.
func TestLateFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	worker, run := w.worker(t, time.Minute)
	run()
	hour := time.Now().Truncate(time.Hour).Add(-5 * time.Hour)
	w.add(t, hour.Add(2*time.Hour), "k", "a/a", "callback", "R2")
	w.caughtUp(t, worker)
	w.add(t, hour, "k", "a/b", "callback", "R1")
	w.caughtUp(t, worker)
	w.compare(t)
	got := w.lines(t, "SELECT concat_ws(' ', mime_type, uploads, new_objects, overwrites) FROM upcall.rollup_hourly ORDER BY 1")
	if want := "[a/a 1 0 1 a/b 1 1 0]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

// TestTypes: a bucket has 200 types in an hour, and what comes later is counted as others, also if it
// becomes an overwrite afterwards.
func TestTypes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	worker, run := w.worker(t, time.Minute)
	run()
	hour := time.Now().Truncate(time.Hour).Add(-time.Hour)
	for i := range 200 {
		w.add(t, hour, fmt.Sprint(i), fmt.Sprintf("x/%d", i), "callback", "")
	}
	w.caughtUp(t, worker)
	w.add(t, hour.Add(time.Minute), "late", "x/late", "callback", "R")
	w.add(t, hour.Add(time.Minute), "long", "x/"+strings.Repeat("y", 254), "callback", "")
	w.add(t, hour.Add(time.Minute), "7", "X/7;p=1", "callback", "")
	w.caughtUp(t, worker)
	w.add(t, hour.Add(-time.Minute), "late", "x/0", "callback", "S") // is the first now
	w.caughtUp(t, worker)
	got := w.lines(t, `SELECT concat_ws(' ', mime_type, uploads, new_objects, overwrites) FROM upcall.rollup_hourly
		WHERE mime_type IN ('other', 'x/7', 'x/late') OR uploads <> 1 ORDER BY 1`)
	if want := "[other 2 1 1 x/7 2 1 1]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
	w.add(t, hour, "9", "x/late", "callback", "")
	w.caughtUp(t, worker)
	if n := w.number(t, "SELECT uploads FROM upcall.rollup_hourly WHERE mime_type = 'other'"); n != 3 {
		t.Errorf("%d uploads of other types, want 3", n)
	}
}

// TestDeadLetters: keys that no index takes are counted, and what PostgreSQL does not take is set aside;
// what comes after it is counted.
func TestDeadLetters(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	// A constraint stands for a value that nobody has thought of.
	w.exec(t, "ALTER TABLE upcall.rollup_objects ADD CHECK (object_key <> 'poison')")
	now := time.Now().Truncate(time.Microsecond)
	fits, long := strings.Repeat("键", 2599/3), strings.Repeat("k", 2600)
	for _, key := range []string{"before", "poison", long, fits, "after"} {
		w.add(t, now, key, "x/y", "callback", "")
	}
	worker, run := w.worker(t, time.Minute)
	run()
	w.caughtUp(t, worker)
	if n := w.number(t, "SELECT sum(uploads) FROM upcall.rollup_hourly"); n != 4 {
		t.Errorf("%d uploads are counted, want 4", n)
	}
	if n := w.number(t, "SELECT count(*) FROM upcall.rollup_objects WHERE object_key IN ('before', 'after', $1)", fits); n != 3 {
		t.Errorf("%d objects, want 3", n)
	}
	got := w.lines(t, `SELECT CASE WHEN object_key = 'poison' THEN 'poison' ELSE 'long' END || ' ' || left(problem, 14)
		FROM upcall.rollup_dead_letters d JOIN upcall.upload_events e ON e.id = d.event_id AND e.received_at = d.received_at ORDER BY 1`)
	if want := "[long bucket and key poison not counted: r]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

// TestReadAgain: after a failover, the log is read again from an earlier place, on another timeline.
func TestReadAgain(t *testing.T) {
	t.Parallel()
	w, random := newWorld(t), seeded(t)
	worker, run := w.worker(t, time.Second)
	run()
	w.addRandom(t, random, 300)
	w.caughtUp(t, worker)
	place := w.number(t, "SELECT recorded_xid::text::bigint FROM upcall.upload_events ORDER BY recorded_xid LIMIT 1")
	w.exec(t, `UPDATE upcall.feed_consumers SET recorded_xid = $1::text::xid8, id = $2, lease_holder = NULL WHERE name = 'rollup'`,
		fmt.Sprint(place), uuid.Nil)
	w.addRandom(t, random, 100)
	w.caughtUp(t, worker)
	w.compare(t)
}

// TestRebuildKeepsWhatWasDropped: roll-ups outlive retention, and late events of a month that was
// dropped count once.
func TestRebuildKeepsWhatWasDropped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	old := time.Now().UTC().AddDate(0, -3, 0).Truncate(time.Hour)
	w.partitions(t, old)
	now := time.Now().Truncate(time.Microsecond)
	worker, run := w.worker(t, time.Second)
	run()
	for i := range 3 { // with two in between that are dropped, and one that is not
		w.add(t, old.Add(time.Duration(i)*time.Minute), "both", "x/y", "callback", "")
	}
	w.add(t, now, "both", "x/y", "callback", "")
	w.add(t, now.Add(1), "both", "x/y", "callback", "")
	w.add(t, old, "old", "x/z", "callback", "")
	w.add(t, now, "new", "x/y", "callback", "")
	w.caughtUp(t, worker)
	const hours = `SELECT concat_ws(' ', hour, mime_type, uploads, bytes, new_objects, overwrites) FROM upcall.rollup_hourly
		WHERE uploads <> 0 AND generation = (SELECT generation FROM upcall.rollup_generations WHERE stage = 'current') ORDER BY 1`
	const objects = `SELECT concat_ws(' ', object_key, uploads, first_at, received_at, event_id) FROM upcall.rollup_objects
		WHERE generation = (SELECT generation FROM upcall.rollup_generations WHERE stage = 'current') ORDER BY 1`
	for w.number(t, "SELECT count(*) FROM upcall.upload_events") > 3 { // it drops one month at a time
		if dropped, err := eventstore.DropExpired(t.Context(), w.pool, now, 40); err != nil || len(dropped.Months) != 1 {
			t.Fatalf("dropped %+v, %v", dropped, err)
		}
	}
	w.partitions(t, old) // as a late event does
	w.add(t, old.Add(time.Hour), "both", "x/y", "callback", "")
	w.exec(t, "INSERT INTO upcall.upload_events (id, received_at, source) VALUES (gen_random_uuid(), $1, 'callback')", old.Add(time.Hour))
	w.caughtUp(t, worker)
	want := [2]string{fmt.Sprint(w.lines(t, hours)), fmt.Sprint(w.lines(t, objects))}
	versions := w.lines(t, keptVersions+" ORDER BY 1")
	for range 2 {
		if err := Rebuild(t.Context(), w.pool); err != nil {
			t.Fatal(err)
		}
		w.rebuilt(t, worker)
		w.caughtUp(t, worker)
		if got := [2]string{fmt.Sprint(w.lines(t, hours)), fmt.Sprint(w.lines(t, objects))}; got != want {
			t.Errorf("after rebuild:\n got %v\nwant %v", got, want)
		}
		if got := w.lines(t, keptVersions+" ORDER BY 1"); fmt.Sprint(got) != fmt.Sprint(versions) {
			t.Errorf("versions after rebuild:\n got %v\nwant %v", got, versions)
		}
	}
	if n := w.number(t, "SELECT count(*) FROM upcall.rollup_dead_letters"); n != 0 {
		t.Errorf("%d dead letters", n) // an event that is copied and counted
	}
}
