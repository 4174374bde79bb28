package main

import (
	"context"
	"math/rand/v2"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"upcall/internal/loadgen"
)

// A load sends callbacks at a steady rate to the two URLs, from outside.
type load struct {
	loadgen.Account
	gate  sync.RWMutex // each callback in flight holds it to read, and the code that pauses the load to write
	make  *loadgen.Generator
	addrs []string
	one   bool // each callback has one URL only
	pace  *rate.Limiter
}

// run sends callbacks until ctx ends.
func (l *load) run(ctx context.Context, clients int, seed uint64) error {
	var group errgroup.Group
	for n := range clients {
		group.Go(func() error {
			random := rand.New(rand.NewPCG(seed, uint64(n)))
			for l.pace.Wait(ctx) == nil {
				if err := l.next(random); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// next sends one callback.
func (l *load) next(random *rand.Rand) error {
	l.gate.RLock()
	defer l.gate.RUnlock()
	i := l.Begin()
	message, err := l.make.Message(i, true)
	if err != nil {
		return err
	}
	first := random.IntN(len(l.addrs))
	addrs := []string{l.addrs[first], l.addrs[(first+1)%len(l.addrs)]}
	if l.one {
		addrs = addrs[:1]
	}
	l.Deliver(i, message, random, addrs...)
	return nil
}

// pause returns when all callbacks that were begun have ended; none begins until resume is called.
func (l *load) pause() (resume func()) {
	l.gate.Lock()
	l.Pause()
	return l.gate.Unlock
}
