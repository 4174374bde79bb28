package hooks

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"upcall/internal/testing/wait"
	"upcall/internal/webhook"
)

// uploading uploads until the returned function is called, which returns all ids.
func (w *world) uploading(t *testing.T) func() []uuid.UUID {
	var ids []uuid.UUID
	stop := run(t, func(ctx context.Context) {
		for ctx.Err() == nil {
			ids = append(ids, w.upload(t, "k", 20)...)
			_ = sleep(ctx, 20*time.Millisecond)
		}
	})
	return func() []uuid.UUID { stop(); return ids }
}

// TestPauseHolds: no request arrives that began after Pause has returned, through any of several
// receivers, and after Resume every event does.
func TestPauseHolds(t *testing.T) {
	t.Parallel()
	w, a := newWorld(t), newApp(t, nil)
	w.receiver(t)
	w.receiver(t)
	w.add(t, "app", a, func(s *Settings) { s.MaxInFlight = 32 })
	stop := w.uploading(t)
	for range 5 {
		before := a.requests()
		wait.Until(t, "deliveries arrive", func() bool { return a.requests() > before+50 })
		if _, err := w.Pause(t.Context(), "app"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond) // what was written before is still read by the server
		held := a.requests()
		time.Sleep(300 * time.Millisecond)
		if late := a.requests() - held; late != 0 {
			t.Errorf("%d requests arrive at a paused endpoint", late)
		}
		if _, err := w.Resume(t.Context(), "app"); err != nil {
			t.Fatal(err)
		}
	}
	a.waitFor(t, stop())
}

// TestPauseHoldsBacklog: what waits for its turn when its endpoint is paused does not begin when
// the requests in flight end, and is sent after Resume.
func TestPauseHoldsBacklog(t *testing.T) {
	t.Parallel()
	w, a := newWorld(t), newApp(t, nil)
	release := make(chan struct{})
	a.answers(func(n int, r *http.Request) int {
		if n == 1 {
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
		return 204
	})
	w.receiver(t)
	w.add(t, "app", a, func(s *Settings) { s.MaxInFlight = 1 })
	ids := w.upload(t, "k", 10)
	wait.Until(t, "the first is in flight", func() bool { return a.requests() == 1 })
	if _, err := w.Pause(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	close(release)
	wait.Until(t, "the first is committed", func() bool { return w.sum(t, delivered) >= 1 })
	time.Sleep(2 * tick)
	if a.requests() != 1 {
		t.Errorf("%d requests, 1 of them before the endpoint was paused", a.requests())
	}
	if _, err := w.Resume(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	a.waitFor(t, ids)
}

// TestPauseGivesUpConnecting: a request that still waits for its connection when its endpoint is
// paused is not sent later.
func TestPauseGivesUpConnecting(t *testing.T) {
	t.Parallel()
	w, a := newWorld(t), newApp(t, nil)
	delay := make(chan struct{})
	names := newNameServer(t, []string{"127.0.0.1"}, delay)
	pump, _ := w.receiver(t, func(c *PumpConfig) { c.Resolver = names.resolver() })
	_, port, _ := strings.Cut(strings.TrimPrefix(a.URL, "http://"), ":")
	s := Settings{Name: "app", URL: "http://app.example.com:" + port}
	if _, _, err := w.Add(t.Context(), s, a.secret, Start{}); err != nil {
		t.Fatal(err)
	}
	ids := w.upload(t, "k", 3)
	wait.Until(t, "requests wait for their connections", func() bool { return pump.metrics.inFlight.Load() == 3 })
	if _, err := w.Pause(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	if n := pump.metrics.inFlight.Load(); n != 0 {
		wait.Until(t, "they are given up", func() bool { return pump.metrics.inFlight.Load() == 0 })
	}
	close(delay)
	time.Sleep(100 * time.Millisecond)
	if a.requests() != 0 {
		t.Errorf("%d requests arrive", a.requests())
	}
	if _, err := w.Resume(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	a.waitFor(t, ids)
	if n := w.count(t, "hook_retries"); n != 0 {
		t.Errorf("%d requests that were given up count as failed", n)
	}
}

// TestReceiversTakeTurns: one receiver works for an endpoint. When it stops in order, another one
// goes on where it was, and nothing is delivered twice.
func TestReceiversTakeTurns(t *testing.T) {
	t.Parallel()
	w, a := newWorld(t), newApp(t, nil)
	w.add(t, "app", a)
	_, stopFirst := w.receiver(t)
	ids := w.upload(t, "k", 100)
	a.waitFor(t, ids)
	_, stopSecond := w.receiver(t)
	stopFirst()
	more := w.upload(t, "k", 100)
	a.waitFor(t, more)
	stopSecond()
	got := a.ids()
	slices.Sort(got)
	if len(got) != 200 || len(slices.Compact(got)) != 200 {
		t.Errorf("%d requests", len(got))
	}
}

// TestUpdateHolds: after Update has returned, events are told by the new filter only.
func TestUpdateHolds(t *testing.T) {
	t.Parallel()
	w, a := newWorld(t), newApp(t, nil)
	w.receiver(t)
	w.add(t, "app", a, func(s *Settings) { s.KeyPrefixes = []string{"a/"} })
	a.waitFor(t, w.upload(t, "a/", 5))
	if _, err := w.Update(t.Context(), "app", Change{KeyPrefixes: &[]string{"b/"}, Name: new("renamed")}); err != nil {
		t.Fatal(err)
	}
	w.upload(t, "a/", 5)
	a.waitFor(t, w.upload(t, "b/", 5))
	if a.requests() != 10 {
		t.Errorf("%d requests", a.requests())
	}
	if _, err := w.Get(t.Context(), "app"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the former name: %v", err)
	}
}

// TestRotate: for a time an application can verify by either secret, and then by the new one.
func TestRotate(t *testing.T) {
	t.Parallel()
	w, a := newWorld(t), newApp(t, nil)
	var mu sync.Mutex
	var headers []http.Header
	a.answers(func(_ int, r *http.Request) int {
		mu.Lock()
		defer mu.Unlock()
		headers = append(headers, r.Header)
		return 204
	})
	w.clock.set(time.Now())
	w.receiver(t)
	w.add(t, "app", a)
	signatures := func(want int) {
		t.Helper()
		a.waitFor(t, w.upload(t, "k", 1))
		mu.Lock()
		defer mu.Unlock()
		if got := strings.Fields(headers[len(headers)-1].Get("Webhook-Signature")); len(got) != want {
			t.Errorf("signatures %v, want %d", got, want)
		}
	}
	signatures(1)
	e, _, err := w.Rotate(t.Context(), "app", webhook.Secret{}, time.Hour)
	if err != nil || !e.RotatedUntil.Equal(w.clock.Now().Add(time.Hour).Truncate(time.Microsecond)) {
		t.Fatalf("%v, until %v", err, e.RotatedUntil)
	}
	signatures(2) // the application verifies by the former one
	if _, _, err := w.Rotate(t.Context(), "app", a.secret, 2*time.Hour); err != nil {
		t.Fatal(err)
	}
	signatures(2)
	w.clock.set(w.clock.Now().Add(2 * time.Hour))
	signatures(1)
	if _, _, err := w.Rotate(t.Context(), "app", a.secret, -1); !errors.Is(err, ErrLimit) {
		t.Errorf("%v", err)
	}
	if _, err := standardwebhooks.NewWebhook(a.secret.Reveal()); err != nil {
		t.Error(err)
	}
}

// TestRemove: nothing is left of an endpoint, its name can be used again, and nothing arrives.
func TestRemove(t *testing.T) {
	t.Parallel()
	w, a := newWorld(t), newApp(t, status(500))
	w.receiver(t)
	w.add(t, "app", a)
	w.upload(t, "k", 5)
	wait.Until(t, "retries wait and attempts are kept", func() bool {
		return w.count(t, "hook_retries") == 5 && w.count(t, "hook_attempts") >= 5
	})
	if err := w.Remove(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	before := a.requests()
	w.upload(t, "k", 5)
	for _, table := range []string{"hook_endpoints", "hook_retries", "hook_counts", "feed_consumers"} {
		if n := w.count(t, table); n != 0 {
			t.Errorf("%d rows in %s", n, table)
		}
	}
	if err := w.Remove(t.Context(), "app"); !errors.Is(err, ErrNotFound) {
		t.Errorf("again: %v", err)
	}
	b := newApp(t, nil)
	w.add(t, "app", b)
	b.waitFor(t, w.upload(t, "k", 3))
	if a.requests() != before {
		t.Error("a removed endpoint is told")
	}
}

// TestSuccessesKept: of each endpoint the latest attempts that succeeded are kept, and old ones
// go with their months.
func TestSuccessesKept(t *testing.T) {
	t.Parallel()
	w, a := newWorld(t), newApp(t, nil)
	pump, stop := w.receiver(t)
	e := w.add(t, "app", a)
	a.waitFor(t, w.upload(t, "k", 250))
	wait.Until(t, "all are counted", func() bool { return w.sum(t, "delivered") == 250 })
	pump.write(t.Context(), true)
	a.waitFor(t, w.upload(t, "k", 30))
	wait.Until(t, "all are counted", func() bool { return w.sum(t, "delivered") == 280 })
	pump.write(t.Context(), true)
	stop()
	got, err := w.Attempts(t.Context(), "app", time.Time{}, 1000)
	if err != nil || len(got) != 100 || *got[0].Status != 204 || got[0].EndpointID != e.ID {
		t.Errorf("%d attempts, %v", len(got), err)
	}
	later := time.Now().AddDate(0, 3, 0)
	if err := Keep(t.Context(), w.pool, later); err != nil {
		t.Fatal(err)
	}
	if n := w.count(t, "hook_attempts"); n != 0 {
		t.Errorf("%d attempts are kept for months", n)
	}
	months, err := partitions(t.Context(), w.pool)
	if err != nil || len(months) < 3 || len(months) > 4 { // that of last month may be old enough
		t.Errorf("%d months, %v", len(months), err)
	}
}

// TestSlots: endpoints that hold requests leave some slots to those that hold none.
func TestSlots(t *testing.T) {
	t.Parallel()
	s := slots{free: maxInProcess}
	busy, idle := make(chan struct{}, 1), make(chan struct{}, 1)
	held := 0
	for s.take(held, busy) {
		held++
	}
	if held != maxInProcess-reservedSlots {
		t.Errorf("one endpoint holds %d", held)
	}
	for range reservedSlots {
		if !s.take(0, idle) {
			t.Fatal("no slot is left for others")
		}
	}
	if s.take(0, idle) {
		t.Error("more slots than there are")
	}
	s.give()
	select {
	case <-idle:
	default:
		t.Error("nobody is told of a free slot")
	}
	if s.take(held, busy) || !s.take(0, idle) {
		t.Error("the wrong one gets it")
	}
}
