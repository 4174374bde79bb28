package recorder

import (
	"context"
	"sync"
	"time"
)

// moment is how much later than asked for a context of an [expiry] may end.
const moment = 20 * time.Millisecond

// An expiry hands out contexts that end after a time. All who ask within a moment share one,
// because a timer for each callback costs more than its place in a batch does.
type expiry struct {
	mu    sync.Mutex
	ctx   context.Context
	until time.Time // when another one is made
}

// begin returns a context that ends after a time, which is the same for all, or up to a moment later.
func (e *expiry) begin(now time.Time, after time.Duration) context.Context {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !now.Before(e.until) {
		ctx, cancel := context.WithTimeout(context.Background(), after+moment)
		context.AfterFunc(ctx, cancel) // it is never canceled, only over
		e.ctx, e.until = ctx, now.Add(moment)
	}
	return e.ctx
}
