package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"

	"upcall/internal/loadgen"
)

const (
	// A callback that was answered is repeated with this chance, to the other receiver;
	// and sent to both at once with that one.
	repeatChance = 0.05
	bothChance   = 0.02
	// giveUp is well above OSS's five seconds, so that an answer that is late is seen.
	giveUp = 15 * time.Second
)

// A load sends callbacks as OSS does: to one URL, and to the next one unless that
// answers 200. It continues until every fault has happened, so that there are callbacks
// for each of them.
type load struct {
	world   *world
	total   int // callbacks at least
	clients int
	seed    uint64
	moved   chan struct{} // tells of progress, now and then

	mu       sync.Mutex
	faulted  bool        // there are no more faults to come
	events   []uuid.UUID // by callback that was begun: the event id of its first 200
	sent     int         // requests
	accepted int         // requests answered 200
	spooled  int         // of those, by a spool
	unheard  int         // callbacks that no receiver acknowledged
	wrong    []string    // answers that no receiver may give to a genuine callback
	slowest  time.Duration
}

func newLoad(w *world, c command) *load {
	return &load{
		world: w, total: c.Callbacks, clients: c.Clients, seed: c.Seed,
		moved: make(chan struct{}, 1), events: make([]uuid.UUID, 0, c.Callbacks),
	}
}

// take returns the number of the next callback, or that there is none.
func (l *load) take() (int, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.events) >= l.total && l.faulted {
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

// endFaults says that there are no more faults to come.
func (l *load) endFaults() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faulted = true
}

// run sends all callbacks.
func (l *load) run(ctx context.Context) error {
	generator, err := loadgen.New(l.world.keys.KeyURL)
	if err != nil {
		return err
	}
	errs := make(chan error, l.clients)
	for n := range l.clients {
		go func() {
			random := rand.New(rand.NewPCG(l.seed, uint64(n)))
			for {
				i, more := l.take()
				if !more || ctx.Err() != nil {
					errs <- ctx.Err()
					return
				}
				select {
				case l.moved <- struct{}{}:
				default:
				}
				message, err := generator.Message(i, true)
				if err != nil {
					errs <- err
					return
				}
				l.deliver(i, message, random)
			}
		}()
	}
	for range l.clients {
		if e := <-errs; e != nil {
			err = e
		}
	}
	close(l.moved)
	return err
}

// deliver takes one callback to the receivers.
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

// send sends one request and tells whether it was acknowledged.
func (l *load) send(r *receiver, i int, message []byte) bool {
	client := loadgen.Client{Addr: r.public, Closing: true, ConnectTimeout: time.Second, Timeout: giveUp}
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
	if err == nil || took > 5*time.Second {
		l.slowest = max(l.slowest, took)
	}
	switch {
	case err != nil: // the receiver was killed, or is not up yet: OSS goes to its next URL
		return false
	case status == http.StatusServiceUnavailable:
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

// reach returns when the load has begun n callbacks, or ends; it tells which.
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
