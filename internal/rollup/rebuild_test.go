package rollup

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"upcall/internal/testing/wait"
)

// load adds random events, up to 600 a second, until the function that it returns is called, which
// returns how many batches it added. One that fails is left out: whether it was committed does not matter.
func (w *world) load(t testing.TB, random *rand.Rand) (stop func() (batches int)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	batches, done := 0, make(chan struct{})
	go func() {
		defer close(done)
		for sleep(ctx, 50*time.Millisecond) {
			if w.tryRandom(random, 30) == nil {
				batches++
			}
		}
	}()
	stop = func() int { cancel(); <-done; return batches }
	t.Cleanup(func() { stop() })
	return stop
}

// TestRebuildUnderLoad: events come all the time, also in the moment in which a generation takes the
// place of the other.
func TestRebuildUnderLoad(t *testing.T) {
	t.Parallel()
	w, random := newWorld(t), seeded(t)
	w.keys = 2000
	worker, run := w.worker(t, time.Minute)
	quick(worker)
	run()
	w.addRandom(t, random, 500)
	w.caughtUp(t, worker)
	for n := range 3 {
		damage := []string{
			"UPDATE upcall.rollup_hourly SET uploads = uploads + 1", "DELETE FROM upcall.rollup_objects WHERE object_key LIKE '%7'",
			"DELETE FROM upcall.rollup_superseded",
		}
		w.exec(t, damage[n])
		stop := w.load(t, random)
		before := w.number(t, "SELECT generation FROM upcall.rollup_generations WHERE stage = 'current'")
		if err := Rebuild(t.Context(), w.pool); err != nil {
			t.Fatal(err)
		}
		wait.Until(t, "the generation was replaced", func() bool {
			return w.number(t, "SELECT generation FROM upcall.rollup_generations WHERE stage = 'current'") != before
		})
		at := w.number(t, "SELECT count(*) FROM upcall.upload_events")
		wait.Until(t, "more events have come", func() bool { return w.number(t, "SELECT count(*) FROM upcall.upload_events") > at+300 })
		if stop() == 0 {
			t.Fatal("there was no load")
		}
		w.rebuilt(t, worker)
		w.caughtUp(t, worker)
		w.compare(t)
		w.compareViews(t)
	}
}

// TestTypesAfterRebuild: after a rebuild an hour and bucket has at most 200 types, too, and what is
// counted as others is taken out of them.
func TestTypesAfterRebuild(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	worker, run := w.worker(t, time.Minute)
	run()
	hour := time.Now().Truncate(time.Hour).Add(-2 * time.Hour)
	const kept = `SELECT concat_ws(' ', hour = $1, count(DISTINCT mime_type) FILTER (WHERE mime_type <> 'other'),
			sum(uploads) FILTER (WHERE mime_type = 'other'), sum(uploads), sum(bytes), sum(new_objects), sum(overwrites))
		FROM upcall.upload_hourly GROUP BY hour ORDER BY hour`
	check := func(when string, want ...string) {
		t.Helper()
		w.caughtUp(t, worker)
		if got := w.lines(t, kept, hour); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: got %q, want %q", when, got, want)
		}
	}
	// 250 types in pages that end anywhere; in a page, they are taken in their order.
	for i := range 250 {
		w.add(t, hour.Add(time.Minute), fmt.Sprint(i), fmt.Sprintf("x/%03d", i), "notification", fmt.Sprint("R", i))
		if i%60 == 0 {
			w.caughtUp(t, worker)
		}
	}
	w.add(t, hour.Add(time.Hour), "next", "x/249", "callback", "")
	check("at first", "t 200 50 250 1250 250 0", "f 1 1 5 1 0")
	for n := range 2 {
		if err := Rebuild(t.Context(), w.pool); err != nil {
			t.Fatal(err)
		}
		// While it is built: another type of the hour, and one that is there.
		w.add(t, hour.Add(time.Minute), fmt.Sprint("more/", n), fmt.Sprintf("y/%d", n), "callback", "")
		w.add(t, hour.Add(time.Minute), fmt.Sprint("more/", n), "X/007", "callback", "")
		w.rebuilt(t, worker)
		add := 2 * (n + 1)
		check(fmt.Sprintf("rebuild %d", n), fmt.Sprintf("t 200 %d %d %d %d %d", 50+n+1, 250+add, 5*(250+add), 250+n+1, n+1), "f 1 1 5 1 0")
	}
	// Callbacks tell of uploads that are counted as others: those lose, and what remains of others is right.
	for i := 210; i < 230; i++ {
		w.add(t, hour.Add(time.Hour), fmt.Sprint(i), fmt.Sprintf("x/%03d", i), "callback", fmt.Sprint("R", i))
	}
	check("taken out of others", "t 200 32 234 1170 232 2", "f 21 21 105 21 0")
	if err := Rebuild(t.Context(), w.pool); err != nil {
		t.Fatal(err)
	}
	w.rebuilt(t, worker)
	check("built again", "t 200 32 234 1170 232 2", "f 21 21 105 21 0")
}
