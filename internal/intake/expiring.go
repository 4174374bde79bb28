package intake

import (
	"context"
	"sync"
	"time"
)

// An expiring context has a deadline, but no timer before someone waits for its end. A callback that
// PostgreSQL records never does: what commits it has a deadline of its own.
type expiring struct {
	context.Context
	until time.Time

	mu     sync.Mutex
	timed  context.Context // once someone waits
	cancel context.CancelFunc
}

func newExpiring(parent context.Context, until time.Time) *expiring {
	return &expiring{Context: parent, until: until}
}

// end releases the timer, if there is one.
func (e *expiring) end() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.cancel != nil {
		e.cancel()
	}
}

func (e *expiring) Deadline() (time.Time, bool) { return e.until, true }

// Done makes a context with a timer.
func (e *expiring) Done() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.timed == nil {
		e.timed, e.cancel = context.WithDeadline(e.Context, e.until)
	}
	return e.timed.Done()
}

func (e *expiring) Err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.timed != nil {
		return e.timed.Err()
	}
	if err := e.Context.Err(); err != nil {
		return err
	}
	if !time.Now().Before(e.until) {
		return context.DeadlineExceeded
	}
	return nil
}

// Value lets contexts that are derived from this one find the one with the timer.
func (e *expiring) Value(key any) any {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.timed != nil {
		return e.timed.Value(key)
	}
	return e.Context.Value(key)
}
