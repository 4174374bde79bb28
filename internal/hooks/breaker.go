package hooks

import "time"

const (
	// The breaker opens after so many failures in a row, or if half of the last window failed.
	openInRow = 10
	window    = 50
	// A probe is sent that long after the breaker opened. Each one that fails doubles the pause.
	firstProbe, slowestProbe = 30 * time.Second, 15 * time.Minute
	// disableAfter is how long an endpoint may fail before it is disabled.
	disableAfter = 120 * time.Hour
)

// A breaker spares an endpoint that is down: while it is open, only probes are sent. It is a
// plain state machine: its callers hold the lock, tell the time, and send the probes.
type breaker struct {
	// slowest is the longest pause between probes. A schedule of short steps, as for tests,
	// makes it shorter.
	slowest time.Duration

	failed  [window]bool // the last outcomes, from place on
	place   int
	known   int // how many of them there are
	failing int // how many of them failed
	inRow   int // failures since the last success

	open    bool
	since   time.Time     // the first failure since the last success; zero if there is none
	probeAt time.Time     // when the next probe may be sent, while it is open
	pause   time.Duration // before it
}

// newBreaker returns a closed breaker for a schedule.
func newBreaker(s Schedule) breaker {
	slowest := slowestProbe
	if longest := s.longest(); longest > 0 {
		slowest = min(slowest, longest)
	}
	return breaker{slowest: slowest}
}

// A verdict says what an outcome means for the endpoint.
type verdict int

const (
	unchanged verdict = iota
	opened            // only probes from now on
	closed            // it works again
	disabled          // nothing is sent any more
)

// success counts a delivery. One is enough to close the breaker.
func (b *breaker) success() verdict {
	wasOpen := b.open
	if wasOpen {
		*b = breaker{slowest: b.slowest}
	}
	b.count(false)
	b.inRow, b.since = 0, time.Time{}
	if wasOpen {
		return closed
	}
	return unchanged
}

// failure counts a failed attempt. An answer's Retry-After puts off the next probe, within the
// bounds of probes.
func (b *breaker) failure(now time.Time, isProbe bool, retryAfter time.Duration) verdict {
	if b.since.IsZero() {
		b.since = now
	}
	b.count(true)
	b.inRow++
	switch {
	case b.open && !isProbe: // it began before the breaker opened
		return unchanged
	case b.open && now.Sub(b.since) >= disableAfter:
		return disabled
	case b.open:
		b.pause = min(2*b.pause, b.slowest)
		b.wait(now, retryAfter)
		return unchanged
	case b.inRow >= openInRow, b.known == window && 2*b.failing >= window:
		b.open, b.pause = true, min(firstProbe, b.slowest)
		b.wait(now, retryAfter)
		return opened
	}
	return unchanged
}

// wait sets the time of the next probe. The last one comes just when the endpoint is disabled
// if it fails.
func (b *breaker) wait(now time.Time, retryAfter time.Duration) {
	b.probeAt = now.Add(max(b.pause, min(retryAfter, b.slowest)))
	if last := b.since.Add(disableAfter); b.probeAt.After(last) && now.Before(last) {
		b.probeAt = last
	}
}

func (b *breaker) count(failed bool) {
	if b.known == window && b.failed[b.place] {
		b.failing--
	}
	b.failed[b.place] = failed
	b.place = (b.place + 1) % window
	b.known = min(b.known+1, window)
	if failed {
		b.failing++
	}
}

// mayProbe reports whether it is time for a probe.
func (b *breaker) mayProbe(now time.Time) bool { return b.open && !now.Before(b.probeAt) }
