package hooks

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/testing/wait"
)

// row is what there is to know of a retry.
type row struct {
	attempts int
	due      *time.Time
	status   *int
}

// retry returns the only row of an endpoint's retries.
func (w *world) retry(t *testing.T) (r row, ok bool) {
	t.Helper()
	rows, err := w.pool.Query(t.Context(), "SELECT attempts, due_at, status FROM upcall.hook_retries")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(&r.attempts, &r.due, &r.status); err != nil || ok {
			t.Fatalf("another row, or %v", err)
		}
		ok = true
	}
	return r, ok
}

// quick has lanes look at a clock that jumps more often.
func quick(c *PumpConfig) { c.tick = 2 * time.Millisecond }

// TestHundredHours: an endpoint that is down gets one event ten times, each time within its
// jitter, in 75 h 35 min ± 20 % in all. Then the event is a dead letter, until it is sent again.
func TestHundredHours(t *testing.T) {
	t.Parallel()
	w, down := newWorld(t), newApp(t, status(500))
	w.clock.set(time.Now())
	w.receiver(t, quick)
	endpoint := w.add(t, "down", down)
	ids := w.upload(t, "k", 1)
	began := w.clock.Now()
	last := began
	for attempt := 1; ; attempt++ {
		var r row
		wait.Until(t, "an attempt fails", func() (ok bool) {
			r, ok = w.retry(t)
			return ok && r.attempts == attempt
		})
		if down.requests() != attempt || *r.status != 500 {
			t.Fatalf("%d requests after attempt %d, status %d", down.requests(), attempt, *r.status)
		}
		if r.due == nil {
			if attempt != 10 {
				t.Fatalf("dead after %d attempts", attempt)
			}
			break
		}
		step := DefaultSchedule()[attempt-1]
		if pause := r.due.Sub(last); pause < step*8/10-time.Second || pause > step*12/10+time.Second {
			t.Errorf("attempt %d comes after %v, want %v ± 20 %%", attempt+1, pause, step)
		}
		w.clock.set(r.due.Add(-time.Second)) // a moment too early
		time.Sleep(tick)
		if down.requests() != attempt {
			t.Fatalf("attempt %d comes early", attempt+1)
		}
		w.clock.set(*r.due)
		last = *r.due
	}
	if total, want := last.Sub(began), sum(DefaultSchedule()); total < want*8/10 || total > want*12/10 {
		t.Errorf("the attempts took %v", total)
	}
	w.clock.set(began.Add(100 * time.Hour))
	dead, err := w.Failed(t.Context(), "down", true, 10)
	if err != nil || len(dead) != 1 || dead[0].EventID != ids[0] || dead[0].Attempts != 10 || dead[0].Problem == "" {
		t.Errorf("%v, %+v", err, dead)
	}
	if !strings.Contains(w.logs.String(), "receiver hooks redeliver --endpoint down --event "+ids[0].String()) {
		t.Error("the log does not say how to send it again")
	}
	attempts, err := w.Attempts(t.Context(), endpoint.ID.String(), time.Time{}, 100)
	if err != nil {
		t.Fatal(err)
	}
	wait.Until(t, "attempts are kept", func() bool {
		attempts, err = w.Attempts(t.Context(), endpoint.ID.String(), time.Time{}, 100)
		return err == nil && len(attempts) == 10
	})
	if last, first := attempts[0], attempts[9]; last.Number != 10 || last.Reason != ForRetry || first.Number != 1 ||
		first.Reason != ForFirst || *first.Status != 500 {
		t.Errorf("%+v", attempts)
	}

	down.answers(nil)
	if n, err := w.Redeliver(t.Context(), Redelivery{Endpoint: "down"}); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := w.Resume(t.Context(), "down"); err != nil { // ten failures in a row have opened the breaker
		t.Fatal(err)
	}
	wait.Until(t, "the dead letter is gone", func() bool { _, ok := w.retry(t); return !ok })
	if down.requests() != 11 {
		t.Errorf("%d requests", down.requests())
	}
}

// TestDownForDays: while an endpoint is down, its events wait where they are, and only probes are
// sent. After 120 hours it is disabled; resumed, it gets every event.
func TestDownForDays(t *testing.T) {
	t.Parallel()
	w, down := newWorld(t), newApp(t, status(500))
	w.clock.set(time.Now())
	pump, _ := w.receiver(t, quick)
	w.add(t, "down", down)
	ids := w.upload(t, "k", 1000)
	began := w.clock.Now()
	open := func() (e Endpoint) {
		e, err := w.Get(t.Context(), "down")
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	wait.Until(t, "the breaker opens", func() bool { return open().State == Failing })
	wait.Until(t, "nothing is in flight", func() bool { return pump.metrics.inFlight.Load() == 0 })
	first := down.requests()
	if first < openInRow || first > openInRow+DefaultMaxInFlight {
		t.Errorf("%d requests before the breaker opened", first)
	}
	probes := 0
	for e := open(); e.State == Failing; e = open() {
		if w.clock.set(e.ProbeAt); probes == 20 { // breaker_test.go has all of them
			w.clock.set(began.Add(disableAfter - time.Minute))
		}
		probes++
		wait.Until(t, "a probe is sent", func() bool { n := open(); return n.State == Disabled || n.ProbeAt.After(e.ProbeAt) })
	}
	if took := w.clock.Now().Sub(began); took < 120*time.Hour-time.Second || took > 120*time.Hour+time.Minute {
		t.Errorf("disabled after %v", took)
	}
	if got := down.requests() - first; got != probes {
		t.Errorf("%d requests for %d probes", got, probes)
	}
	if n := w.count(t, "hook_retries"); n > first {
		t.Errorf("%d rows of retries after %d attempts", n, first)
	}
	if n := w.count(t, "hook_retries WHERE due_at IS NULL OR attempts > 1"); n != 0 {
		t.Errorf("%d retries have used up attempts", n)
	}
	if !strings.Contains(w.logs.String(), `"level":"ERROR","msg":"endpoint is disabled`) {
		t.Error("it is disabled silently")
	}
	var state string
	w.query(t, &state, "SELECT state FROM upcall.hook_status WHERE name = 'down'")
	if state != "disabled" {
		t.Errorf("hook_status says %s", state)
	}
	down.answers(nil)
	down.mu.Lock()
	down.arrived = nil
	down.mu.Unlock()
	if _, err := w.Resume(t.Context(), "down"); err != nil {
		t.Fatal(err)
	}
	down.waitFor(t, ids)
	wait.Until(t, "no retry is left", func() bool { return w.count(t, "hook_retries") == 0 })
	if down.requests() != len(ids) {
		t.Errorf("%d requests for %d events", down.requests(), len(ids))
	}
}

// TestComesBack: one success closes the breaker, and what has waited is sent.
func TestComesBack(t *testing.T) {
	t.Parallel()
	w, a := newWorld(t), newApp(t, status(503))
	w.clock.set(time.Now())
	w.receiver(t)
	w.add(t, "app", a)
	ids := w.upload(t, "k", 200)
	var probeAt time.Time
	wait.Until(t, "the breaker opens", func() bool {
		e, err := w.Get(t.Context(), "app")
		probeAt = e.ProbeAt
		return err == nil && e.State == Failing
	})
	a.answers(nil)
	w.clock.set(probeAt.Add(time.Minute))
	a.waitFor(t, ids)
	wait.Until(t, "it is active, and has no retries", func() bool {
		e, err := w.Get(t.Context(), "app")
		return err == nil && e.State == Active && e.FailingSince.IsZero() && w.count(t, "hook_retries") == 0
	})
}

func TestGoneDisables(t *testing.T) {
	t.Parallel()
	w, a := newWorld(t), newApp(t, status(http.StatusGone))
	w.receiver(t)
	w.add(t, "app", a, func(s *Settings) { s.MaxInFlight = 1 })
	ids := w.upload(t, "k", 5)
	wait.Until(t, "it is disabled", func() bool {
		e, err := w.Get(t.Context(), "app")
		return err == nil && e.State == Disabled && strings.Contains(e.Reason, "410")
	})
	if a.requests() != 1 {
		t.Errorf("%d requests", a.requests())
	}
	a.answers(nil)
	if _, err := w.Resume(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	a.waitFor(t, ids)
}

// TestShortSchedule is what tests of users do: all attempts within seconds.
func TestShortSchedule(t *testing.T) {
	t.Parallel()
	w, a := newWorld(t), newApp(t, func(n int, _ *http.Request) int { return 200 + 300*(n%2) })
	w.receiver(t, func(c *PumpConfig) { c.Schedule = Schedule{100 * time.Millisecond, time.Second} })
	w.add(t, "app", a, func(s *Settings) { s.MaxInFlight = 1 })
	ids := w.upload(t, "k", 1)
	wait.Until(t, "it is delivered", func() bool { return w.sum(t, "delivered") == 1 })
	if got := a.ids(); len(got) != 2 || got[0] != ids[0].String() || got[1] != got[0] {
		t.Errorf("%v", got)
	}
	if n := w.count(t, "hook_retries"); n != 0 {
		t.Errorf("%d rows are left", n)
	}
}

// TestDroppedEvent: a retry whose event was dropped by retention is a dead letter at once.
func TestDroppedEvent(t *testing.T) {
	t.Parallel()
	w, a := newWorld(t), newApp(t, nil)
	e := w.add(t, "app", a)
	w.exec(t, `INSERT INTO upcall.hook_retries (endpoint_id, event_id, received_at, kind, reason, attempts, due_at)
		VALUES ($1, $2, now(), 'recorded', 'retry', 1, now())`, e.ID, uuid.New())
	w.receiver(t)
	wait.Until(t, "it is dead", func() bool { r, ok := w.retry(t); return ok && r.due == nil })
	dead, err := w.Failed(t.Context(), "", true, 1)
	if err != nil || dead[0].Problem != "the event was dropped from the log" || a.requests() != 0 {
		t.Errorf("%v, %+v, %d requests", err, dead, a.requests())
	}
}

func TestRedeliver(t *testing.T) {
	t.Parallel()
	w, a, b := newWorld(t), newApp(t, nil), newApp(t, nil)
	old := w.upload(t, "a/old", 20)
	var since, until time.Time
	w.query(t, &since, "SELECT min(received_at) FROM upcall.upload_events")
	w.query(t, &until, "SELECT max(received_at) + interval '1 microsecond' FROM upcall.upload_events")
	w.upload(t, "b/old", 5)
	w.add(t, "a", a, func(s *Settings) { s.KeyPrefixes = []string{"a/"} })
	w.add(t, "b", b, func(s *Settings) { s.KeyPrefixes = []string{"b/"} })
	redeliver := func(want int, r Redelivery) {
		t.Helper()
		if n, err := w.Redeliver(t.Context(), r); err != nil || n != want {
			t.Errorf("%+v: %d, %v", r, n, err)
		}
	}
	if _, err := w.Pause(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	w.receiver(t)
	redeliver(20, Redelivery{Since: since, Until: until})
	redeliver(5, Redelivery{Endpoint: "b", Since: since})
	redeliver(25, Redelivery{Since: since}) // the same rows
	redeliver(0, Redelivery{Endpoint: "b", Since: since, Until: until})
	redeliver(0, Redelivery{})
	wait.Until(t, "b has its events", func() bool { return b.requests() >= 5 })
	if a.requests() != 0 {
		t.Error("a paused endpoint gets a redelivery")
	}
	if _, err := w.Resume(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	a.waitFor(t, old)
	redeliver(1, Redelivery{Event: old[3]})
	redeliver(1, Redelivery{Event: old[3], Since: since, Until: until})
	redeliver(0, Redelivery{Event: old[3], Endpoint: "b"}) // does not match
	wait.Until(t, "the event comes again", func() bool { return a.requests() > len(old) })
	for _, r := range []Redelivery{
		{Event: uuid.New()}, {Event: old[3], Since: until}, {Event: old[3], Until: since}, {Endpoint: "c"}, {Endpoint: uuid.NewString()},
	} {
		if _, err := w.Redeliver(t.Context(), r); !errors.Is(err, ErrNotFound) {
			t.Errorf("%+v: %v", r, err)
		}
	}
	if _, err := w.Redeliver(t.Context(), Redelivery{Since: until, Until: since}); !errors.Is(err, ErrFrom) {
		t.Errorf("%v", err)
	}
}
