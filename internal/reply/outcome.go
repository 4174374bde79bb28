package reply

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"upcall/internal/event"
	"upcall/internal/fault"
)

// What became of a call.
const (
	replied     = "replied"
	timeout     = "timeout"     // no whole answer in time
	unreachable = "unreachable" // no connection, or it broke
	status      = "status"      // not 2xx
	invalid     = "invalid"     // not a JSON object
	tooLarge    = "too_large"
	busy        = "busy"     // all calls were taken
	canceled    = "canceled" // OSS ended the callback before
)

var outcomes = []string{replied, timeout, unreachable, status, invalid, tooLarge, busy, canceled}

var (
	errStatus = errors.New("the answer is")
	errBusy   = errors.New("64 calls are under way")
)

// outcomeOf returns the outcome of a call in ctx that ended with err.
func outcomeOf(ctx context.Context, err error) string {
	switch {
	case err == nil:
		return replied
	case errors.Is(ctx.Err(), context.Canceled):
		return canceled
	case errors.Is(err, context.DeadlineExceeded):
		return timeout
	case errors.Is(err, errStatus):
		return status
	case errors.Is(err, errTooLarge):
		return tooLarge
	case errors.Is(err, errInvalid), errors.Is(err, event.ErrUnstorable):
		return invalid
	}
	return unreachable
}

// metrics counts calls.
type metrics struct {
	calls    *prometheus.CounterVec
	seconds  prometheus.Histogram
	inFlight prometheus.GaugeFunc
}

func newMetrics(slots chan struct{}) *metrics {
	m := &metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "upcall_reply_calls_total",
			Help: "Calls of the reply hook by outcome: replied, timeout, unreachable, status (not 2xx), invalid (not a JSON object), " +
				"too_large, busy (not made: 64 were under way) or canceled (OSS ended the callback).",
		}, []string{"outcome"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "upcall_reply_seconds",
			Help:    "Duration of calls of the reply hook.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 1.5, 2, 3, 4},
		}),
		inFlight: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "upcall_reply_calls_in_flight",
			Help: "Calls of the reply hook that have not ended; at most 64.",
		}, func() float64 { return float64(len(slots)) }),
	}
	for _, outcome := range outcomes {
		m.calls.WithLabelValues(outcome) // 0 rather than absent
	}
	return m
}

// Collectors returns the metrics for a registry.
func (h *Hook) Collectors() []prometheus.Collector {
	return []prometheus.Collector{h.metrics.calls, h.metrics.seconds, h.metrics.inFlight}
}

// logEvery is the shortest time between two lines about failures. Behind an application that is
// down, each upload would write one.
const logEvery = 10 * time.Second

// failures logs calls without a reply.
type failures struct {
	logger *slog.Logger
	now    func() time.Time
	mu     sync.Mutex
	last   time.Time // of the latest line
	silent int       // failures since then
}

// note logs a failure, or counts it for the next line.
func (f *failures) note(ctx context.Context, e *event.Event, outcome string, err error) {
	f.mu.Lock()
	silent := f.silent
	if now := f.now(); f.last.IsZero() || now.Sub(f.last) >= logEvery {
		f.last, f.silent = now, 0
	} else {
		f.silent++
		f.mu.Unlock()
		return
	}
	f.mu.Unlock()
	f.logger.WarnContext(context.WithoutCancel(ctx), "reply hook failed", slog.String("outcome", outcome),
		slog.String("error", fault.Short(fault.Line(err.Error()))), slog.String("event_id", e.ID.String()), slog.Int("failed_since_last_line", silent))
}
