package hooks

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/testing/wait"
)

// place is what the database says of an endpoint's place in the log.
func (w *world) place(t *testing.T, e Endpoint) (place string) {
	t.Helper()
	w.query(t, &place, "SELECT (recorded_xid, received_at, id)::text FROM upcall.feed_consumers WHERE name = $1", e.consumer())
	return place
}

// working returns for how many endpoints a pump works.
func (p *Pump) working() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.lanes)
}

// stall adds an endpoint whose first request stalls while its lease is taken away by an UPDATE of
// the consumer, and then fails. It returns when the lane has noticed. The second request, which has
// begun before that, must be given up.
func (w *world) stall(t *testing.T, a *app, theft string) (pump *Pump, e Endpoint, sent []uuid.UUID) {
	t.Helper()
	pump, _ = w.receiver(t)
	e = w.add(t, "app", a, func(s *Settings) { s.MaxInFlight = 1 })
	release, givenUp := make(chan struct{}), make(chan struct{})
	a.answers(func(n int, r *http.Request) int {
		switch n {
		case 1:
			select {
			case <-release:
			case <-r.Context().Done():
				t.Error("the first request is given up")
			}
			return 500
		case 2:
			<-r.Context().Done()
			close(givenUp)
		}
		return 204
	})
	sent = w.upload(t, "k", 5)
	wait.Until(t, "the first request stalls", func() bool { return a.requests() == 1 })
	w.exec(t, "UPDATE upcall.feed_consumers SET "+theft)
	close(release)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	select {
	case <-givenUp:
	case <-ctx.Done():
		t.Fatal("the former holder of the lease goes on")
	}
	return pump, e, sent
}

// nothing checks that nothing was committed of what became of the former holder's attempts.
func (w *world) nothing(t *testing.T) {
	t.Helper()
	if n, counted := w.count(t, "hook_retries"), w.sum(t, failed); n != 0 || counted != 0 {
		t.Errorf("a former holder has committed %d retries and %d failures", n, counted)
	}
}

// TestLeaseIsAnothers: the lane of a receiver that has stalled while another one took its endpoint
// over commits nothing, and begins no attempt once it knows.
func TestLeaseIsAnothers(t *testing.T) {
	t.Parallel()
	w, a := newWorld(t), newApp(t, nil)
	pump, e, _ := w.stall(t, a, "lease_holder = 'another', lease_until = now() + interval '1 hour'")
	wait.Until(t, "its lane has ended", func() bool { return pump.working() == 0 })
	before := w.place(t, e)
	w.upload(t, "k", 5)
	time.Sleep(leaseEvery + 2*pollEvery) // it asks for the lease again
	if a.requests() != 2 || pump.working() != 0 {
		t.Errorf("%d requests; the first and the one that was given up are 2", a.requests())
	}
	if after := w.place(t, e); after != before {
		t.Errorf("a former holder has moved the place from %s to %s", before, after)
	}
	w.nothing(t)
}

// TestLeaseWasAnothers: another receiver had the endpoint for a moment, delivered, and gave it back.
// The stalled lane, whose receiver has the lease again, commits nothing all the same, and a new one
// goes on where the other ended.
func TestLeaseWasAnothers(t *testing.T) {
	t.Parallel()
	w, a := newWorld(t), newApp(t, nil)
	_, _, sent := w.stall(t, a, `received_at = NULL, (recorded_xid, id) = (SELECT recorded_xid, id
		FROM upcall.upload_events ORDER BY recorded_xid DESC, id DESC LIMIT 1)`)
	more := w.upload(t, "k", 5)
	a.waitFor(t, more)
	wait.Until(t, "they are committed", func() bool { return w.sum(t, delivered) >= len(more) })
	if n := a.requests(); n != 2+len(more) {
		t.Errorf("%d requests for %d events; of the %d before, 2", n, len(more), len(sent))
	}
	w.nothing(t)
}
