package reconcile

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/oss"
)

// fill makes a bucket and a log with differences, and returns what a run finds.
func (w *world) fill(t *testing.T, b *bucket, objects int) Counts {
	t.Helper()
	w.exec(t, `INSERT INTO upcall.upload_events (id, received_at, source, bucket, object_key, etag)
		SELECT gen_random_uuid(), $1, 'callback', 'photos', CASE n % 3 WHEN 0 THEN 'flat' || md5(n::text)
			WHEN 1 THEN 'day/' || n % 31 || '/' || n ELSE 'user/' || n || '/x' END, $2
		FROM generate_series(1, $3::int) n`, old, etag("a"), objects)
	for i, key := range w.lines(t, "SELECT object_key FROM upcall.upload_events") {
		if i%20 != 0 { // others have vanished
			b.objects[key] = oss.Head{Size: 1, ETag: etag("a"), LastModified: old}
		}
	}
	known := len(b.objects)
	for i := range 350 {
		b.objects[fmt.Sprintf("missing/%d", i)] = oss.Head{Size: 1, ETag: etag("a"), LastModified: old}
		b.objects[fmt.Sprintf("foreign/%d", i%50)] = oss.Head{Size: 1, ETag: etag("a"), LastModified: old}
	}
	w.exec(t, `INSERT INTO upcall.issued_uploads (upload_id, issued_at, expires_at, bucket, object_key, vars)
		SELECT gen_random_uuid(), $1, $1, 'photos', 'missing/' || n, '{}' FROM generate_series(0, 349) n`, old.Add(-time.Minute))
	for key := range b.objects {
		b.keys = append(b.keys, key)
	}
	slices.Sort(b.keys)
	w.counted(t)
	return Counts{Listed: int64(len(b.keys)), Known: int64(known), Missing: 350, Recovered: 350, Vanished: int64(objects - known),
		Foreign: 50}
}

// TestInterrupted interrupts a run again and again, wherever it is, and compares what it finds in the end.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	w, b := newWorld(t), newBucket()
	want := w.fill(t, b, 12_000)
	var mu sync.Mutex
	var stop context.CancelFunc
	steps := 0
	step := func() {
		mu.Lock()
		defer mu.Unlock()
		if steps--; steps == 0 {
			stop()
		}
	}
	b.onList = func(int, oss.Listing) error { step(); return nil }
	b.onHead = func(string) { step() }
	runs, ids := 0, make(map[int64]bool)
	for {
		ctx, cancel := context.WithCancel(t.Context())
		mu.Lock()
		stop, steps = cancel, 1+rand.N(40)
		if runs > 40 {
			steps = -1
		}
		mu.Unlock()
		cfg := w.config(t, b)
		cfg.Report = func(Progress) { // also between two requests
			if runs <= 40 && rand.N(25) == 0 {
				cancel()
			}
		}
		got, err := Run(ctx, cfg)
		cancel()
		runs++
		ids[got.RunID] = true
		if err == nil {
			if diff := cmp.Diff(want, got.Counts); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if !got.Resumed && runs > 1 {
				t.Error("the last run does not say that it was resumed")
			}
			break
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	if len(ids) != 1 || runs < 10 {
		t.Errorf("%d runs, of %d kinds", runs, len(ids))
	}
	if n := w.number(t, "SELECT count(*) FROM upcall.upload_events WHERE source = 'reconcile'"); n != 350 {
		t.Errorf("%d events", n)
	}
	if n := w.number(t, "SELECT count(*) FROM upcall.removals WHERE source = 'reconcile'"); n != int(want.Vanished) {
		t.Errorf("%d removals", n)
	}
	t.Logf("%d runs, %d listings, %d heads", runs, b.lists, len(b.heads))
}

// TestKilled leaves a run as a process that is killed does, and looks who may go on with it.
func TestKilled(t *testing.T) {
	t.Parallel()
	w, b := newWorld(t), newBucket()
	want := w.fill(t, b, 3000)
	first := w.config(t, b)
	first.Lease = time.Minute
	first = first.withDefaults()
	row, resumed, err := acquire(t.Context(), first)
	if err != nil || resumed {
		t.Fatal(row, resumed, err)
	}
	killed := &run{Config: first, caller: newCaller(b, 1e6, first.Metrics, first.Now), record: row, now: now}
	if err := killed.prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	b.onList = func(n int, _ oss.Listing) error {
		if n == 3 {
			cancel()
		}
		return nil
	}
	if err := killed.list(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	b.onList = nil

	// Its lease has not ended.
	for name, change := range map[string]func(*Config){
		"same":           func(*Config) {},
		"another bucket": func(c *Config) { c.Bucket = "others" },
		"another prefix": func(c *Config) { c.Prefix = "x" },
		"dry":            func(c *Config) { c.DryRun = true },
	} {
		cfg := w.config(t, b)
		cfg.Patience = time.Nanosecond
		change(&cfg)
		if _, err := Run(t.Context(), cfg); !errors.Is(err, ErrRunning) || !strings.Contains(err.Error(), first.Holder) {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.exec(t, "UPDATE upcall.reconcile_runs SET lease_until = now() - interval '1 second'")
	// Another kind of run does not remove what it has listed.
	other := w.config(t, b)
	other.Prefix, other.DryRun = "foreign/", true
	if got := w.reconcile(t, other); got.Resumed || got.Foreign != 50 {
		t.Errorf("another prefix: %+v", got)
	}
	listed := w.number(t, "SELECT listed FROM upcall.reconcile_runs WHERE run_id = $1", killed.id)
	if n := w.number(t, "SELECT count(*) FROM upcall.reconcile_objects WHERE run_id = $1", killed.id); n != listed || n == 0 {
		t.Errorf("%d rows are left of %d", n, listed)
	}
	lists := b.lists
	got := w.reconcile(t, w.config(t, b))
	if diff := cmp.Diff(want, got.Counts); diff != "" || got.RunID != killed.id || !got.Resumed {
		t.Errorf("run %d, resumed: %v (-want +got):\n%s", got.RunID, got.Resumed, diff)
	}
	if b.lists-lists > 8 {
		t.Errorf("%d pages were listed again", b.lists-lists)
	}
	// The one that was killed was only asleep.
	if err := killed.commit(t.Context(), killed.record, nil); !errors.Is(err, ErrLost) {
		t.Errorf("a former holder commits: %v", err)
	}
	if n := w.number(t, "SELECT count(*) FROM upcall.reconcile_runs WHERE ended_at IS NULL OR lease_until IS NOT NULL"); n != 0 {
		t.Errorf("%d runs have not ended", n)
	}
}

// TestTakenOver has a run whose lease another process takes.
func TestTakenOver(t *testing.T) {
	t.Parallel()
	w, b := newWorld(t), newBucket()
	w.fill(t, b, 3000)
	b.onList = func(n int, _ oss.Listing) error {
		if n == 2 {
			w.exec(t, "UPDATE upcall.reconcile_runs SET fence = fence + 1, holder = 'another'")
		}
		return nil
	}
	cfg := w.config(t, b)
	cfg.Lease = time.Hour // so that it is not renewed meanwhile
	if _, err := Run(t.Context(), cfg); !errors.Is(err, ErrLost) {
		t.Errorf("%v, want ErrLost", err)
	}
	if n := w.number(t, "SELECT count(*) FROM upcall.reconcile_runs WHERE holder = 'another' AND ended_at IS NULL"); n != 1 {
		t.Error("the former holder has ended the run")
	}
}

// TestTooOldToResume begins anew if what was listed is days old.
func TestTooOldToResume(t *testing.T) {
	t.Parallel()
	w, b := newWorld(t), newBucket()
	w.counted(t)
	b.put("a", "a", old)
	w.exec(t, `INSERT INTO upcall.reconcile_runs (bucket, stage, begun_at, listed_at, listed) VALUES ('photos', 'compare', $1, $1, 99)`,
		now.Add(-resumable-time.Minute))
	w.exec(t, "INSERT INTO upcall.reconcile_objects (run_id, object_key) SELECT run_id, 'x' FROM upcall.reconcile_runs")
	if got := w.reconcile(t, w.config(t, b)); got.Resumed || got.Counts != (Counts{Listed: 1, Foreign: 1}) {
		t.Errorf("%+v", got)
	}
	if got := w.lines(t, "SELECT stage || ' ' || coalesce(problem, '') FROM upcall.reconcile_runs ORDER BY run_id"); !slices.Equal(got,
		[]string{"failed interrupted, and not resumed in time", "done "}) {
		t.Errorf("runs: %q", got)
	}
	if got := w.lines(t, "SELECT object_key FROM upcall.reconcile_objects"); !slices.Equal(got, []string{"a"}) {
		t.Errorf("objects: %q", got)
	}
}

// TestBehind waits for roll-ups, but not forever.
func TestBehind(t *testing.T) {
	t.Parallel()
	w, b := newWorld(t), newBucket()
	w.counted(t)
	b.put("a", "a", old)
	w.exec(t, "UPDATE upcall.feed_consumers SET lease_holder = 'a receiver that hangs', lease_until = now() + interval '1 hour'")
	w.tell(t, "a", etag("a"), old, nil)
	cfg := w.config(t, b)
	cfg.Patience = 300 * time.Millisecond
	if _, err := Run(t.Context(), cfg); !errors.Is(err, ErrBehind) {
		t.Errorf("%v, want ErrBehind", err)
	}
	w.exec(t, "UPDATE upcall.feed_consumers SET lease_until = now() - interval '1 hour'")
	w.counted(t)
	if got := w.reconcile(t, w.config(t, b)); !got.Resumed || got.Known != 1 {
		t.Errorf("%+v", got)
	}
}

// TestOutage loses all connections again and again, as in a failover, and compares what a run finds in the end.
func TestOutage(t *testing.T) {
	t.Parallel()
	w, b := newWorld(t), newBucket()
	want := w.fill(t, b, 6000)
	var mu sync.Mutex
	requests := 0
	lose := func() {
		mu.Lock()
		requests++
		due := requests == 3 || requests%150 == 0
		mu.Unlock()
		if due {
			w.exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
				WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'upcall'`)
		}
	}
	b.onList = func(int, oss.Listing) error { lose(); return nil }
	b.onHead = func(string) { lose() }
	got := w.reconcile(t, w.config(t, b))
	if diff := cmp.Diff(want, got.Counts); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := w.number(t, "SELECT count(*) FROM upcall.reconcile_runs WHERE stage = 'done' AND fence > 1"); n != 1 {
		t.Error("the run was not resumed")
	}
	if n := w.number(t, "SELECT count(*) FROM upcall.upload_events WHERE source = 'reconcile'"); n != 350 {
		t.Errorf("%d events", n)
	}
}
