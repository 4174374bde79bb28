package main

import (
	"context"
	"sync"
	"time"
)

// stillness is when the whole machine did nothing, which is nobody's fault: a virtual machine that
// was suspended, or moved. No answer is measured meanwhile, and leases may end.
type stillness struct {
	mu    sync.Mutex
	times []period
}

type period struct{ from, to time.Time }

// standsStill is how late a timer is at least when the machine stood still: under load it is late,
// too, but not so much.
const standsStill = 3 * time.Second

// watch notes when the machine stood still, until ctx ends.
func (s *stillness) watch(ctx context.Context, noted func(from, to time.Time)) {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for last := time.Now(); ; {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		now := time.Now()
		if now.Sub(last) >= standsStill {
			s.note(last, now)
			noted(last, now)
		}
		last = now
	}
}

func (s *stillness) note(from, to time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.times = append(s.times, period{from, to})
}

// count returns how often the machine stood still.
func (s *stillness) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.times)
}

// during reports whether it did within a period.
func (s *stillness) during(from, to time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.times {
		if p.from.Before(to) && p.to.After(from) {
			return true
		}
	}
	return false
}
