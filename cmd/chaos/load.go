package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"upcall/internal/loadgen"
)

// answerTimeout is well above OSS's five seconds, so that a late answer is seen.
const answerTimeout = 15 * time.Second

// A load sends callbacks as OSS does: to one URL, and to the next unless that answers 200.
// It continues until every fault has happened, so that there are callbacks for each fault.
type load struct {
	loadgen.Account
	world   *world
	total   int // callbacks at least
	clients int
	seed    uint64
	pace    *rate.Limiter // nil is as fast as they can
	moved   chan struct{} // signals progress from time to time
	make    *loadgen.Generator
	faulted atomic.Bool // no more faults will come
	finding errgroup.Group

	mu    sync.Mutex
	late  int // callbacks that waited in a spool since hours ago
	again int // uploads that a notification told of, too
}

func newLoad(w *world, c command, generator *loadgen.Generator) *load {
	l := &load{
		world: w, make: generator, total: c.Callbacks, clients: c.Clients, seed: c.Seed,
		moved: make(chan struct{}, 1),
	}
	l.Patience = answerTimeout
	if c.Rate > 0 {
		l.pace = rate.NewLimiter(rate.Limit(c.Rate), 1)
	}
	return l
}

// take returns the number of the next callback and whether there is one.
func (l *load) take() (int, bool) {
	if l.Begun() >= l.total && l.faulted.Load() {
		return 0, false
	}
	return l.Begin(), true
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

// deliver sends one callback to the receivers, to either first.
func (l *load) deliver(i int, message []byte, random *rand.Rand) {
	first := random.IntN(2)
	l.Deliver(i, message, random, l.world.receivers[first].public, l.world.receivers[1-first].public)
}

// reach waits until the load has begun n callbacks. It returns false if the load ends first.
func (l *load) reach(ctx context.Context, n int) bool {
	for l.Begun() < n {
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
