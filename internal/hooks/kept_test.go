package hooks

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/testing/wait"
)

// TestFirstTriesFirst: retries that are due wait until the new events have been sent.
func TestFirstTriesFirst(t *testing.T) {
	t.Parallel()
	w, a := newWorld(t), newApp(t, status(500))
	w.clock.set(time.Now())
	pump, _ := w.receiver(t, quick)
	e := w.add(t, "app", a, func(s *Settings) { s.MaxInFlight = 1 })
	w.upload(t, "old", 5)
	wait.Until(t, "five wait for their retries", func() bool { return w.count(t, "hook_retries") == 5 })
	release := make(chan struct{})
	a.answers(func(n int, r *http.Request) int {
		if n == 6 {
			<-release
		}
		return 204
	})
	w.upload(t, "new", 5)
	wait.Until(t, "the first of the new ones is on its way, the others wait", func() bool {
		pump.mu.Lock()
		l := pump.lanes[e.ID]
		pump.mu.Unlock()
		s := l.standing.Load()
		return a.requests() == 6 && s != nil && s.waiting == 5
	})
	w.clock.set(w.clock.Now().Add(10 * time.Second)) // the retries are due
	time.Sleep(tick)                                 // and have been seen
	close(release)
	wait.Until(t, "all are delivered", func() bool { return a.requests() == 15 })
	a.mu.Lock()
	defer a.mu.Unlock()
	var keys []string
	for _, one := range a.arrived[5:] {
		keys = append(keys, one.key[:3])
	}
	want := slices.Concat(slices.Repeat([]string{"new"}, 5), slices.Repeat([]string{"old"}, 5))
	if !slices.Equal(keys, want) {
		t.Errorf("%v", keys)
	}
}

// TestAttemptsKeptForDays: attempts are kept for 14 days, also within a month.
func TestAttemptsKeptForDays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	now, id := time.Now(), uuid.New()
	ages := []time.Duration{0, 13 * 24 * time.Hour, 14*24*time.Hour + time.Minute, 15 * 24 * time.Hour}
	var attempts []Attempt
	for _, age := range ages {
		attempts = append(attempts, Attempt{EndpointID: id, EventID: uuid.New(), Reason: ForRetry, At: now.Add(-age)})
	}
	if err := writeAttempts(t.Context(), w.pool, attempts, now); err != nil {
		t.Fatal(err)
	}
	if err := Keep(t.Context(), w.pool, now); err != nil {
		t.Fatal(err)
	}
	if n, old := w.count(t, "hook_attempts"), w.count(t, "hook_attempts WHERE at < now() - interval '14 days'"); n != 2 || old != 0 {
		t.Errorf("%d attempts are kept, %d of them too old", n, old)
	}
}

// TestCountsByHour: each attempt is counted in the hour in which it ended, by its outcome.
func TestCountsByHour(t *testing.T) {
	t.Parallel()
	w, a := newWorld(t), newApp(t, nil)
	hour := time.Now().UTC().Truncate(time.Hour)
	w.clock.set(hour.Add(time.Hour - time.Second))
	w.receiver(t, func(c *PumpConfig) { c.Schedule = Schedule{5 * time.Hour} })
	e := w.add(t, "app", a)
	counted := func(at time.Time, outcome string) (n int) {
		w.query(t, &n, `SELECT coalesce(sum(attempts), 0)::integer FROM upcall.hook_counts
			WHERE endpoint_id = $1 AND hour = $2 AND outcome = $3`, e.ID, at, outcome)
		return n
	}
	w.upload(t, "k", 3)
	wait.Until(t, "three are delivered in the first hour", func() bool { return counted(hour, delivered) == 3 })
	w.clock.set(hour.Add(time.Hour))
	w.upload(t, "k", 2)
	wait.Until(t, "two are delivered in the second", func() bool { return counted(hour.Add(time.Hour), delivered) == 2 })
	a.answers(status(500))
	w.upload(t, "k", 1)
	wait.Until(t, "one fails in the second", func() bool { return counted(hour.Add(time.Hour), failed) == 1 })
	w.clock.set(hour.Add(8 * time.Hour))
	wait.Until(t, "it is dead in another", func() bool { return counted(hour.Add(8*time.Hour), dead) == 1 })
	if n := counted(hour, delivered); n != 3 || w.count(t, "hook_counts") != 4 {
		t.Errorf("%d in the first hour, %d rows", n, w.count(t, "hook_counts"))
	}
}
