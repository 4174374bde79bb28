package hooks

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"upcall/internal/fault"
)

// ErrSchedule says that a text is not a schedule of retries.
var ErrSchedule = errors.New("not a schedule")

// A Schedule says how long after each failed attempt the next one comes. After the last, the
// message is a dead letter of its endpoint.
type Schedule []time.Duration

// DefaultSchedule is that of Standard Webhooks 1.0 after the first try: 75 h 35 min in all.
func DefaultSchedule() Schedule {
	return Schedule{5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour,
		10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour}
}

const (
	maxSteps = 30
	maxStep  = 7 * 24 * time.Hour
	// jitter is the share by which a pause may be shorter or longer, so that messages that
	// failed together do not come back together.
	jitter = 0.2
	// maxRetryAfter bounds by how long an answer may put off a retry that is due earlier.
	maxRetryAfter = 15 * time.Minute
)

// ParseSchedule reads durations separated by commas, as in 100ms,1s. "0s" is no retry at all,
// and "" the default. The error wraps [ErrSchedule].
func ParseSchedule(text string) (Schedule, error) {
	switch text {
	case "":
		return DefaultSchedule(), nil
	case "0s":
		return Schedule{}, nil
	}
	var schedule Schedule
	for word := range strings.SplitSeq(text, ",") {
		word = strings.TrimSpace(word)
		step, err := time.ParseDuration(word)
		switch {
		case err != nil:
			return nil, fault.New(ErrSchedule, "", "write durations separated by commas, as in 5s,5m,30m,2h", "%s is not a duration",
				fault.Quote(word))
		case step < time.Millisecond || step > maxStep:
			return nil, fault.New(ErrSchedule, "", "write 1ms to 168h", "%s is out of bounds", word)
		}
		schedule = append(schedule, step)
	}
	if len(schedule) > maxSteps {
		return nil, fault.New(ErrSchedule, "", "", "it has %d steps; the most is %d", len(schedule), maxSteps)
	}
	return schedule, nil
}

// longest returns the longest pause, 0 if there is none.
func (s Schedule) longest() time.Duration {
	longest := time.Duration(0)
	for _, step := range s {
		longest = max(longest, step)
	}
	return longest
}

// next returns how long to wait after that many failed attempts, the first being 1; false if
// there was the last. random is in [0, 1). An answer's Retry-After makes the pause longer, up
// to twice the step or to maxRetryAfter, and never shorter.
func (s Schedule) next(attempts int, random float64, retryAfter time.Duration) (time.Duration, bool) {
	if attempts < 1 || attempts > len(s) {
		return 0, false
	}
	step := s[attempts-1]
	pause := spread(step, random)
	if retryAfter > pause {
		pause = min(retryAfter, max(2*step, maxRetryAfter))
	}
	return pause, true
}

// spread returns a pause within the jitter. random is in [0, 1).
func spread(pause time.Duration, random float64) time.Duration {
	return time.Duration(float64(pause) * (1 + jitter*(2*random-1)))
}

// retryAfter reads the header, which holds seconds or a date (RFC 9110, section 10.2.3). It
// returns 0 if there is nothing to read.
func retryAfter(h http.Header, now time.Time) time.Duration {
	text := strings.TrimSpace(h.Get("Retry-After"))
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}
