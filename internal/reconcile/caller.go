package reconcile

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"upcall/internal/oss"
)

// A Bucket is OSS, as a run needs it.
type Bucket interface {
	List(ctx context.Context, l oss.Listing) (oss.Page, error)
	Head(ctx context.Context, bucket, key string) (oss.Head, error)
}

const (
	// firstPause doubles with each attempt, up to longestPause.
	firstPause, longestPause = 500 * time.Millisecond, 30 * time.Second
	// tries is how often a request is sent that fails, and patience how often one that is throttled.
	tries, patience = 6, 20
)

// A caller sends requests to OSS, at most so many a second, and fewer while OSS throttles them: uploads
// need the same limit of the account.
type caller struct {
	bucket  Bucket
	limiter *rate.Limiter
	metrics *Metrics
	now     func() time.Time

	mu   sync.Mutex
	hold time.Time // no request is sent before this
}

func newCaller(bucket Bucket, perSecond float64, metrics *Metrics, now func() time.Time) *caller {
	return &caller{bucket: bucket, limiter: rate.NewLimiter(rate.Limit(perSecond), 1), metrics: metrics, now: now}
}

func (c *caller) list(ctx context.Context, l oss.Listing) (page oss.Page, err error) {
	err = c.do(ctx, "list", func() (time.Duration, error) {
		page, err = c.bucket.List(ctx, l)
		return page.Delay, err
	})
	return page, err
}

// head returns what OSS says of an object; there is false if there is none.
func (c *caller) head(ctx context.Context, bucket, key string) (head oss.Head, there bool, err error) {
	err = c.do(ctx, "head", func() (time.Duration, error) {
		head, err = c.bucket.Head(ctx, bucket, key)
		return head.Delay, err
	})
	if errors.Is(err, oss.ErrNoObject) {
		return oss.Head{}, false, nil
	}
	return head, err == nil, err
}

// do sends a request, again if that may help. The request returns for how long OSS held it back.
func (c *caller) do(ctx context.Context, operation string, request func() (time.Duration, error)) error {
	for try := 1; ; try++ {
		if err := c.wait(ctx); err != nil {
			return err
		}
		c.metrics.request(operation)
		delay, err := request()
		if err == nil {
			c.holdFor(delay)
			return nil
		}
		if ctx.Err() != nil || !passing(err) {
			return err
		}
		throttled := errors.Is(err, oss.ErrThrottled)
		if throttled && try >= patience || !throttled && try >= tries {
			return fmt.Errorf("%d attempts: %w", try, err)
		}
		pause := backOff(try)
		if !throttled {
			if err := sleep(ctx, pause); err != nil {
				return err
			}
			continue
		}
		c.metrics.throttle()
		if answer, ok := errors.AsType[*oss.ServiceError](err); ok {
			pause = max(pause, answer.Delay)
		}
		c.holdFor(pause) // of all that this caller sends
	}
}

// wait returns when the next request may be sent.
func (c *caller) wait(ctx context.Context) error {
	for {
		c.mu.Lock()
		pause := c.hold.Sub(c.now())
		c.mu.Unlock()
		if pause <= 0 {
			return c.limiter.Wait(ctx)
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

func (c *caller) holdFor(pause time.Duration) {
	if pause <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if until := c.now().Add(pause); until.After(c.hold) {
		c.hold = until
	}
}

// backOff returns how long to wait after the attempt: about half a second, and twice as long each time.
func backOff(try int) time.Duration {
	pause := min(firstPause<<min(try-1, 10), longestPause)
	return pause/2 + rand.N(pause)
}

// passing reports whether a request that failed may succeed later.
func passing(err error) bool {
	switch {
	case errors.Is(err, oss.ErrNoObject):
		return false
	case errors.Is(err, oss.ErrThrottled):
		return true
	}
	answer, ok := errors.AsType[*oss.ServiceError](err)
	return !ok || answer.Status >= http.StatusInternalServerError
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
