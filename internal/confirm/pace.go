package confirm

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// A pacer limits requests: to a rate, and further while OSS throttles.
type pacer struct {
	limiter *rate.Limiter
	mu      sync.Mutex
	pause   time.Duration // the last; 0 if all is well
	until   time.Time     // no request is sent before
}

func newPacer(perSecond float64) *pacer {
	return &pacer{limiter: rate.NewLimiter(rate.Limit(perSecond), atOnce)}
}

// wait returns when the next request may be sent, or with ctx's error.
func (p *pacer) wait(ctx context.Context) error {
	for {
		p.mu.Lock()
		pause := time.Until(p.until)
		p.mu.Unlock()
		if pause <= 0 {
			return p.limiter.Wait(ctx)
		}
		if !sleep(ctx, pause) {
			return ctx.Err()
		}
	}
}

// slow has all wait: for as long as OSS says, and longer each time. Requests that were in flight when it
// began to throttle count once.
func (p *pacer) slow(atLeast time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); now.After(p.until) {
		p.pause = max(min(2*p.pause, slowest), firstPause)
		p.until = now.Add(p.pause)
	}
	if least := time.Now().Add(min(atLeast, slowest)); least.After(p.until) {
		p.until = least
	}
}

// fine says that OSS has answered; it may have held the request back, and wants fewer.
func (p *pacer) fine(delay time.Duration) {
	if delay > 0 {
		p.slow(delay)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Now().After(p.until) {
		p.pause = 0
	}
}
