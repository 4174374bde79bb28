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
	refused time.Time     // when the last pause began
}

func newPacer(perSecond float64) *pacer {
	return &pacer{limiter: rate.NewLimiter(rate.Limit(perSecond), atOnce)}
}

// wait returns when the next request may be sent, and that time, or ctx's error.
func (p *pacer) wait(ctx context.Context) (sent time.Time, err error) {
	if err := p.limiter.Wait(ctx); err != nil {
		return time.Time{}, err
	}
	for {
		p.mu.Lock()
		sent := time.Now()
		pause := p.until.Sub(sent)
		p.mu.Unlock()
		if pause <= 0 {
			return sent, nil
		}
		if !sleep(ctx, pause) {
			return time.Time{}, ctx.Err()
		}
	}
}

// slow has all wait: for as long as OSS says, and longer each time. Requests that were in flight together
// count once, however late the last of them is answered: those sent before the first of them was.
func (p *pacer) slow(sent time.Time, atLeast time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if sent.After(p.refused) {
		p.pause = max(min(2*p.pause, slowest), firstPause)
		p.until, p.refused = now.Add(p.pause), now
	}
	if least := now.Add(min(atLeast, slowest)); least.After(p.until) {
		p.until = least
	}
}

// fine says that OSS has answered; it may have held the request back, and wants fewer.
func (p *pacer) fine(sent time.Time, delay time.Duration) {
	if delay > 0 {
		p.slow(sent, delay)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if sent.After(p.refused) {
		p.pause = 0
	}
}
