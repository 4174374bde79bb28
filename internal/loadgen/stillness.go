package loadgen

import (
	"context"
	"sync"
	"time"
)

// Stillness is when the whole machine did nothing, which is nobody's fault: a virtual machine that
// was suspended, or moved. No answer is measured meanwhile, and leases may end.
type Stillness struct {
	mu    sync.Mutex
	times []spell
}

// A spell is a time in which something lasted.
type spell struct {
	from, to time.Time
	answered bool
}

// StandsStill is how late a timer is at least when the machine stood still: under load it is late,
// too, but not so much.
const StandsStill = 3 * time.Second

// Watch notes when the machine stood still, until ctx ends.
func (s *Stillness) Watch(ctx context.Context, noted func(from, to time.Time)) {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for last := time.Now(); ; {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		now := time.Now()
		if now.Sub(last) >= StandsStill {
			s.note(last, now)
			noted(last, now)
		}
		last = now
	}
}

func (s *Stillness) note(from, to time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.times = append(s.times, spell{from: from, to: to})
}

// Count returns how often the machine stood still.
func (s *Stillness) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.times)
}

// During reports whether it did within a time.
func (s *Stillness) During(from, to time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, still := range s.times {
		if still.from.Before(to) && still.to.After(from) {
			return true
		}
	}
	return false
}
