package hooks

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/testing/wait"
)

// TestHangingLeaveRoom: endpoints that hang never have more than 8 requests each and 64 in all, and
// another one gets its events in the meantime.
func TestHangingLeaveRoom(t *testing.T) {
	t.Parallel()
	w, good := newWorld(t), newApp(t, nil)
	release := make(chan struct{})
	var mu sync.Mutex
	now, most := make(map[string]int), make(map[string]int) // requests by endpoint
	all, mostOfAll := 0, 0
	hanging := newApp(t, func(_ int, r *http.Request) int {
		name := r.URL.Path
		mu.Lock()
		now[name]++
		all++
		most[name], mostOfAll = max(most[name], now[name]), max(mostOfAll, all)
		mu.Unlock()
		defer func() {
			mu.Lock()
			defer mu.Unlock()
			now[name]--
			all--
		}()
		select {
		case <-release:
		case <-r.Context().Done():
		}
		return 204
	})
	pump, _ := w.receiver(t, func(c *PumpConfig) { c.attempt = time.Hour })
	var sent []uuid.UUID
	hang := func(name string, events int) {
		s := Settings{Name: name, URL: hanging.URL + "/" + name, Filter: Filter{KeyPrefixes: []string{name + "/"}}}
		if _, _, err := w.Endpoints.add(t.Context(), s, hanging.secret, Start{}); err != nil { // without the pause
			t.Fatal(err)
		}
		sent = append(sent, w.upload(t, name+"/", events)...)
	}
	w.add(t, "good", good, func(s *Settings) { s.KeyPrefixes = []string{"good/"} })
	const each, process = 8, 64
	for i := range process / each { // as many as would take all there are
		hang(fmt.Sprintf("a%d", i), 2*each)
	}
	wait.Until(t, "each of them hangs, with all requests that they may have", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(now) == process/each && all >= process-reservedSlots
	})
	good.waitFor(t, w.upload(t, "good/", 100))
	for i := range reservedSlots + each {
		hang(fmt.Sprintf("b%d", i), 2)
	}
	wait.Until(t, "so many hang that no request is left", func() bool { return pump.metrics.inFlight.Load() >= process })
	late := w.upload(t, "good/", 1)
	time.Sleep(2 * tick) // for one too many to begin
	close(release)
	good.waitFor(t, late)
	hanging.waitFor(t, sent)
	mu.Lock()
	defer mu.Unlock()
	if mostOfAll != process {
		t.Errorf("%d requests at once, want %d", mostOfAll, process)
	}
	for name, n := range most {
		if n > each {
			t.Errorf("%d requests at once to %s", n, name)
		}
	}
}

// TestRetryAfterHolds: an answer puts off the next attempt, but not without bounds, and does not bring
// it forward.
func TestRetryAfterHolds(t *testing.T) {
	t.Parallel()
	w, a := newWorld(t), newApp(t, status(http.StatusServiceUnavailable))
	began := time.Now().Truncate(time.Second)
	w.clock.set(began)
	w.receiver(t, quick, func(c *PumpConfig) { c.Random = func() float64 { return 0.5 } }) // no jitter
	w.add(t, "app", a)
	tests := []struct {
		says string
		due  time.Duration
	}{
		{"1", 5 * time.Second},
		{"soon", 5 * time.Second},
		{"-60", 5 * time.Second},
		{"60", time.Minute},
		{began.Add(2 * time.Minute).UTC().Format(http.TimeFormat), 2 * time.Minute},
		{"899", 899 * time.Second},
		{"36000", 15 * time.Minute},
	}
	due := make(map[string]time.Duration)
	for _, tt := range tests {
		a.mu.Lock()
		a.after = tt.says
		a.mu.Unlock()
		id := w.upload(t, "k", 1)[0]
		wait.Until(t, "the first try fails", func() bool { return w.count(t, "hook_retries WHERE event_id = $1", id) == 1 })
		var at time.Time
		w.query(t, &at, "SELECT due_at FROM upcall.hook_retries WHERE event_id = $1", id)
		if due[id.String()] = at.Sub(began); at.Sub(began) != tt.due {
			t.Errorf("Retry-After %s: the next attempt is due after %v, want %v", tt.says, at.Sub(began), tt.due)
		}
	}
	a.answers(nil)
	for i := 0; i < len(tests); {
		next := tests[i].due
		w.clock.set(began.Add(next - time.Second))
		time.Sleep(tick)
		if early := a.requests() - len(tests); early != i {
			t.Errorf("a moment before %v there are %d attempts, want %d", next, early, i)
		}
		for i < len(tests) && tests[i].due == next {
			i++
		}
		w.clock.set(began.Add(next))
		wait.Until(t, "what is due arrives", func() bool { return a.requests() >= len(tests)+i })
	}
	for i, id := range a.ids()[len(tests):] {
		if due[id] != tests[i].due {
			t.Errorf("attempt %d is one that is due after %v", i, due[id])
		}
	}
	if sent := a.ids(); len(sent) != 2*len(tests) || len(slices.Compact(slices.Sorted(slices.Values(sent)))) != len(tests) {
		t.Errorf("%d requests", len(sent))
	}
}
