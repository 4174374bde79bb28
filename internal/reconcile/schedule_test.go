package reconcile

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"upcall/internal/oss"
	"upcall/internal/testing/wait"
)

// A setClock is one that a test sets forward, and that counts how often it is read.
type setClock struct {
	mu    sync.Mutex
	at    time.Time
	reads int
}

func (c *setClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads++
	return c.at
}

func (c *setClock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// looked waits until schedules have looked often whether something is due.
func (c *setClock) looked(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	before := c.reads
	c.mu.Unlock()
	wait.Until(t, "schedules look", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.reads > before+50
	})
}

const runsDone = "SELECT count(*) FROM upcall.reconcile_runs WHERE stage = 'done'"

// TestSchedule has three receivers make the runs of two buckets.
func TestSchedule(t *testing.T) {
	t.Parallel()
	w, b, clock := newWorld(t), newBucket(), &setClock{at: now}
	b.put("a", "a", old)
	w.issue(t, "a", old.Add(-time.Minute), nil)
	w.counted(t)
	config := w.config(t, b)
	config.Bucket, config.Now = "", clock.now
	ctx, stop := context.WithCancel(t.Context())
	var receivers sync.WaitGroup
	defer func() { stop(); receivers.Wait() }()
	for range 3 {
		s := &Schedule{Config: config, Buckets: []string{"photos", "videos"}, Every: time.Hour, Look: time.Millisecond}
		receivers.Go(func() { s.Run(ctx) })
	}
	for turn := 1; turn <= 3; turn++ {
		wait.Until(t, "both buckets are compared", func() bool { return w.number(t, runsDone) == 2*turn })
		clock.forward(59 * time.Minute)
		clock.looked(t)
		if n := w.number(t, "SELECT count(*) FROM upcall.reconcile_runs"); n != 2*turn {
			t.Errorf("%d runs, want %d", n, 2*turn)
		}
		if turn < 3 {
			clock.forward(time.Minute)
		}
	}
	got := w.lines(t, "SELECT bucket || ' ' || count(*) FROM upcall.upload_events WHERE source = 'reconcile' GROUP BY bucket")
	if !slices.Equal(got, []string{"photos 1"}) {
		t.Errorf("recorded: %q", got)
	}
}

// TestScheduleGoesOn has another receiver go on with the run of one that ends.
func TestScheduleGoesOn(t *testing.T) {
	t.Parallel()
	w, b := newWorld(t), newBucket()
	w.fill(t, b, 3000)
	ctx, stop := context.WithCancel(t.Context())
	b.onList = func(n int, _ oss.Listing) error {
		if n == 2 {
			stop()
		}
		return nil
	}
	s := &Schedule{Config: w.config(t, b), Buckets: []string{"photos"}, Every: time.Hour, Look: time.Millisecond}
	s.Run(ctx)
	ctx, stop = context.WithCancel(t.Context())
	var other sync.WaitGroup
	other.Go(func() { s.Run(ctx) })
	defer func() { stop(); other.Wait() }()
	wait.Until(t, "the run is done", func() bool { return w.number(t, runsDone) == 1 })
	if got := w.lines(t, "SELECT concat_ws(' ', stage, fence, recovered) FROM upcall.reconcile_runs"); !slices.Equal(got,
		[]string{"done 2 350"}) {
		t.Errorf("runs: %q", got)
	}
}

// TestScheduleFails tries a bucket again that cannot be listed, but not at once.
func TestScheduleFails(t *testing.T) {
	t.Parallel()
	w, b, clock := newWorld(t), newBucket(), &setClock{at: now}
	w.counted(t)
	lists := make(chan int, 100)
	b.onList = func(n int, _ oss.Listing) error { lists <- n; return service(403, "AccessDenied", 0) }
	config := w.config(t, b)
	config.Now = clock.now
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer func() { stop(); running.Wait() }()
	s := &Schedule{Config: config, Buckets: []string{"photos"}, Every: 24 * time.Hour, Look: time.Millisecond}
	running.Go(func() { s.Run(ctx) })
	<-lists
	clock.looked(t)
	if len(lists) > 0 {
		t.Error("another request at once")
	}
	clock.forward(retryAfter)
	<-lists
}
