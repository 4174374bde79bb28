package recorder

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestExpiry: each caller has its time, and at most a moment more, and one context serves many.
func TestExpiry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const after = time.Second
		var e expiry
		shared := make(map[context.Context]bool)
		for range 100 {
			began := time.Now()
			ctx := e.begin(began, after)
			shared[ctx] = true
			ends, _ := ctx.Deadline()
			if d := ends.Sub(began); d < after || d > after+moment {
				t.Fatalf("it ends after %s, want %s and at most %s more", d, after, moment)
			}
			time.Sleep(time.Millisecond)
		}
		if n := len(shared); n != 5 {
			t.Errorf("%d contexts in 100 ms, want one in 20 ms", n)
		}
		for ctx := range shared {
			<-ctx.Done()
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				t.Errorf("it ended with %v", ctx.Err())
			}
		}
	})
}
