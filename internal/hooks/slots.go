package hooks

import "sync"

const (
	// maxInProcess is how many requests a process sends at once, to all endpoints together.
	maxInProcess = 64
	// reservedSlots are only for endpoints that have no request in flight. Without them, eight
	// endpoints that hang would stop all others until the breakers open.
	reservedSlots = 24
)

// slots are the right to have requests in flight.
type slots struct {
	mu      sync.Mutex
	free    int
	waiting []chan<- struct{} // in the order in which they asked
}

// take takes a slot for someone who holds so many. If there is none, it reports false, and
// later sends to wake, once.
func (s *slots) take(held int, wake chan<- struct{}) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.free > reservedSlots || s.free > 0 && held == 0 {
		s.free--
		return true
	}
	for _, other := range s.waiting {
		if other == wake {
			return false
		}
	}
	s.waiting = append(s.waiting, wake)
	return false
}

// give returns a slot and wakes those who wait: the first may hold too many to take it.
func (s *slots) give() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free++
	for _, wake := range s.waiting {
		select {
		case wake <- struct{}{}:
		default: // it is awake
		}
	}
	s.waiting = s.waiting[:0]
}
