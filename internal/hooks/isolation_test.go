package hooks

import (
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/testing/wait"
)

// TestIsolation: an endpoint hangs with thousands of events behind it. It never has more than
// its requests in flight, it has no rows for what waits, and the others get their events.
func TestIsolation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	release := make(chan struct{})
	var now, most atomic.Int64
	hanging := newApp(t, func(_ int, r *http.Request) int {
		most.Store(max(most.Load(), now.Add(1)))
		defer now.Add(-1)
		select {
		case <-release:
		case <-r.Context().Done():
		}
		return 204
	})
	defer close(release)
	w.receiver(t)
	w.add(t, "hanging", hanging, func(s *Settings) { s.KeyPrefixes = []string{"bad/"} })
	var apps []*app
	for i := range 10 {
		apps = append(apps, newApp(t, nil))
		w.add(t, fmt.Sprintf("good%d", i), apps[i], func(s *Settings) { s.KeyPrefixes = []string{fmt.Sprintf("good%d/", i)} })
	}
	w.upload(t, "bad/", 5000)
	wait.Until(t, "it hangs", func() bool { return now.Load() == DefaultMaxInFlight })
	var waits []time.Duration
	for range 20 {
		want := make([][]uuid.UUID, len(apps))
		began := time.Now()
		for i := range apps {
			want[i] = w.upload(t, fmt.Sprintf("good%d/", i), 2)
		}
		for i := range apps {
			apps[i].waitFor(t, want[i])
		}
		waits = append(waits, time.Since(began))
	}
	slices.Sort(waits)
	t.Logf("rounds of 20 events to 10 endpoints: median %v, longest %v", waits[len(waits)/2], waits[len(waits)-1])
	if now.Load() != DefaultMaxInFlight || most.Load() != DefaultMaxInFlight {
		t.Errorf("%d requests hang, at most %d", now.Load(), most.Load())
	}
	if n := w.count(t, "hook_retries"); n > hanging.requests() {
		t.Errorf("%d rows of retries for %d attempts", n, hanging.requests())
	}
}
