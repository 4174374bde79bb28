package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"upcall/internal/loadgen"
)

const (
	// repeatChance is that an acknowledged callback goes to the other receiver too,
	// bothChance that it goes to both at once.
	repeatChance = 0.05
	bothChance   = 0.02
	// answerTimeout is well above OSS's five seconds, so that a late answer is seen.
	answerTimeout = 15 * time.Second
)

// A load sends callbacks as OSS does: to one URL, and to the next unless that answers 200.
// It continues until every fault has happened, so that there are callbacks for each fault.
type load struct {
	world   *world
	total   int // callbacks at least
	clients int
	seed    uint64
	pace    *rate.Limiter // nil is as fast as they can
	moved   chan struct{} // signals progress from time to time
	make    *loadgen.Generator
	faulted atomic.Bool // no more faults will come
	finding errgroup.Group

	mu       sync.Mutex
	events   []uuid.UUID // for each callback that was begun, the event id of its first 200
	sent     int         // requests
	accepted int         // requests answered 200
	spooled  int         // of those, kept in a spool
	unheard  int         // callbacks that no receiver acknowledged
	late     int         // callbacks that waited in a spool since hours ago
	again    int         // uploads that a notification told of, too
	wrong    []string    // answers that a receiver must not give to a genuine callback
	slowest  time.Duration
	tardy    []period // requests that took long, whether there was an answer or not
}

func newLoad(w *world, c command, generator *loadgen.Generator) *load {
	l := &load{
		world: w, make: generator, total: c.Callbacks, clients: c.Clients, seed: c.Seed,
		moved: make(chan struct{}, 1), events: make([]uuid.UUID, 0, c.Callbacks),
	}
	if c.Rate > 0 {
		l.pace = rate.NewLimiter(rate.Limit(c.Rate), 1)
	}
	return l
}

// take returns the number of the next callback and whether there is one.
func (l *load) take() (int, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.events) >= l.total && l.faulted.Load() {
		return 0, false
	}
	l.events = append(l.events, uuid.Nil)
	return len(l.events) - 1, true
}

// begun returns how many callbacks were begun.
func (l *load) begun() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.events)
}

// run sends all callbacks.
func (l *load) run(ctx context.Context) error {
	var group errgroup.Group
	for n := range l.clients {
		group.Go(func() error {
			random := rand.New(rand.NewPCG(l.seed, uint64(n)))
			for {
				if l.pace != nil && l.pace.Wait(ctx) != nil {
					return context.Cause(ctx)
				}
				i, more := l.take()
				if !more || ctx.Err() != nil {
					return ctx.Err()
				}
				select {
				case l.moved <- struct{}{}:
				default:
				}
				message, err := l.make.Message(i, true)
				if err != nil {
					return err
				}
				l.deliver(i, message, random)
			}
		})
	}
	defer close(l.moved)
	return group.Wait()
}

// deliver sends one callback to the receivers.
func (l *load) deliver(i int, message []byte, random *rand.Rand) {
	first := random.IntN(2)
	if random.Float64() < bothChance {
		var group sync.WaitGroup
		for _, r := range l.world.receivers {
			group.Go(func() { l.send(r, i, message) })
		}
		group.Wait()
		return
	}
	if l.send(l.world.receivers[first], i, message) {
		if random.Float64() < repeatChance {
			l.send(l.world.receivers[1-first], i, message)
		}
		return
	}
	if !l.send(l.world.receivers[1-first], i, message) {
		l.mu.Lock()
		l.unheard++
		l.mu.Unlock()
	}
}

// send sends one request and reports whether it was acknowledged.
func (l *load) send(r *receiver, i int, message []byte) bool {
	client := loadgen.Client{Addr: r.public, Closing: true, ConnectTimeout: time.Second, Timeout: answerTimeout}
	started := time.Now()
	status, body, err := client.Send(message)
	took := time.Since(started)
	var answer struct {
		EventID uuid.UUID `json:"event_id"`
		Durable string    `json:"durable"`
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent++
	switch {
	case took >= standsStill:
		l.tardy = append(l.tardy, period{started, started.Add(took)})
	case err == nil:
		l.slowest = max(l.slowest, took)
	}
	switch {
	case err != nil, status == http.StatusServiceUnavailable: // OSS then calls its next URL
		return false
	case status != http.StatusOK || json.Unmarshal(body, &answer) != nil || answer.EventID == uuid.Nil:
		l.wrong = append(l.wrong, fmt.Sprintf("%d %s", status, body))
		return false
	case l.events[i] != uuid.Nil && l.events[i] != answer.EventID:
		l.wrong = append(l.wrong, fmt.Sprintf("a repeat got event %s, first was %s", answer.EventID, l.events[i]))
	}
	l.events[i] = answer.EventID
	l.accepted++
	if answer.Durable == "spool" {
		l.spooled++
	}
	return true
}

// measure makes slowest that of all requests but those during which the machine stood still.
func (l *load) measure(s *stillness) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.tardy {
		if !s.during(p.from, p.to) {
			l.slowest = max(l.slowest, p.to.Sub(p.from))
		}
	}
}

// reach waits until the load has begun n callbacks. It returns false if the load ends first.
func (l *load) reach(ctx context.Context, n int) bool {
	for l.begun() < n {
		select {
		case _, more := <-l.moved:
			if !more {
				return false
			}
		case <-ctx.Done():
			return false
		}
	}
	return true
}
