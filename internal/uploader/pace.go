package uploader

import (
	"context"

	"golang.org/x/time/rate"
)

// MinRate is the lowest limit, in bytes per second. Below it, OSS would take the connections
// for broken.
const MinRate = 1024

// newPace returns the limit that all requests share, nil for none. A request gets at most an
// eighth of a second's bytes at a time, so that 64 at once still take turns within seconds.
func newPace(bytesPerSecond int64) *rate.Limiter {
	if bytesPerSecond == 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(bytesPerSecond), int(min(64<<10, bytesPerSecond/8)))
}

// paced waits until some of n bytes may be sent, and returns how many.
func paced(ctx context.Context, limit *rate.Limiter, n int) (int, error) {
	if limit == nil || n == 0 {
		return n, nil
	}
	n = min(n, limit.Burst())
	return n, limit.WaitN(ctx, n)
}
