package hooks

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"upcall/internal/feed"
)

const (
	// maxLabels is how many endpoints have metrics of their own; the others share one, so that
	// endpoints that come and go do not fill the memory of whoever collects them.
	maxLabels   = 500
	otherLabel  = "other"
	measureTime = 5 * time.Second
)

// metrics are those of a pump.
type metrics struct {
	attempts *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	lag      *prometheus.GaugeVec
	events   *prometheus.GaugeVec
	state    *prometheus.GaugeVec
	flying   prometheus.GaugeFunc

	inFlight atomic.Int64
	mu       sync.Mutex
	labels   map[uuid.UUID]string
}

func newMetrics() *metrics {
	m := &metrics{labels: make(map[uuid.UUID]string)}
	m.attempts = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "upcall_hook_attempts_total",
		Help: "Attempts to deliver by endpoint and outcome: delivered; failed, and is tried again; dead, if it was the last.",
	}, []string{"endpoint", "outcome"})
	m.seconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "upcall_hook_attempt_seconds",
		Help:    "Time of one attempt, to the end of the answer, by whether it delivered.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 15},
	}, []string{"delivered"})
	m.lag = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "upcall_hook_lag_seconds",
		Help: "Age of the oldest event that an endpoint was not told of yet, retries apart. Only of endpoints that this receiver works for.",
	}, []string{"endpoint"})
	m.events = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "upcall_hook_lag_events",
		Help: "Events in the log after the place of an endpoint, up to 10000. Only of endpoints that this receiver works for.",
	}, []string{"endpoint"})
	m.state = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "upcall_hook_state",
		Help: "1 for the state of an endpoint: active, failing (only probes are sent), paused or disabled. " +
			"Only of endpoints that this receiver works for.",
	}, []string{"endpoint", "state"})
	m.flying = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "upcall_hook_requests_in_flight",
		Help: "Requests to endpoints that have not ended; at most 64.",
	}, func() float64 { return float64(m.inFlight.Load()) })
	return m
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.attempts, m.seconds, m.lag, m.events, m.state, m.flying}
}

// label returns the value for an endpoint.
func (m *metrics) label(e *Endpoint) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if name, ok := m.labels[e.ID]; ok || len(m.labels) >= maxLabels {
		if name == e.Name || !ok {
			if !ok {
				return otherLabel
			}
			return name
		}
		m.forgetLabel(name)
	}
	m.labels[e.ID] = e.Name
	return e.Name
}

func (m *metrics) forgetLabel(name string) {
	of := prometheus.Labels{"endpoint": name}
	m.attempts.DeletePartialMatch(of)
	m.state.DeletePartialMatch(of)
	m.lag.DeletePartialMatch(of)
	m.events.DeletePartialMatch(of)
}

func (m *metrics) count(e *Endpoint, outcome string) {
	m.attempts.WithLabelValues(m.label(e), outcome).Inc()
}

func (m *metrics) observe(a Attempt) {
	said := "false"
	if a.Delivered {
		said = "true"
	}
	m.seconds.WithLabelValues(said).Observe(a.TookMS / 1000)
}

// forget removes the metrics of an endpoint that this receiver no longer works for.
func (p *Pump) forget(e *Endpoint) {
	name := p.metrics.label(e)
	p.metrics.mu.Lock()
	defer p.metrics.mu.Unlock()
	delete(p.metrics.labels, e.ID)
	if name != otherLabel {
		p.metrics.forgetLabel(name)
	}
}

// A standing is what a lane says of itself, for others.
type standing struct {
	endpoint *Endpoint
	cursor   feed.Cursor
	waiting  int       // deliveries in the window that are not done
	oldest   time.Time // received_at of the first of them; zero if there are none
	behind   bool      // the log has more than the window holds
}

// report says how the lane is doing.
func (l *lane) report() {
	s := standing{endpoint: l.endpoint, cursor: l.lease.Cursor(), behind: !l.reading}
	for _, d := range l.window {
		if d.done {
			continue
		}
		if s.waiting == 0 {
			s.oldest = d.received
		}
		s.waiting++
	}
	l.standing.Store(&s)
}

// measure sets the metrics of lag and state, until ctx ends.
func (p *Pump) measure(ctx context.Context) {
	for sleep(ctx, measureTime) == nil {
		p.mu.Lock()
		lanes := make([]*lane, 0, len(p.lanes))
		for _, l := range p.lanes {
			lanes = append(lanes, l)
		}
		p.mu.Unlock()
		for _, l := range lanes {
			if s := l.standing.Load(); s != nil {
				p.show(ctx, s)
			}
		}
	}
}

func (p *Pump) show(ctx context.Context, s *standing) {
	label, seconds, events := p.metrics.label(s.endpoint), 0.0, float64(s.waiting)
	if !s.oldest.IsZero() {
		seconds = max(0, p.now().Sub(s.oldest).Seconds())
	}
	if s.behind && s.waiting > 0 {
		if lag, err := p.config.Log.Lag(ctx, s.cursor); err == nil {
			events = max(events, float64(lag.Events))
		}
	}
	p.metrics.lag.WithLabelValues(label).Set(seconds)
	p.metrics.events.WithLabelValues(label).Set(events)
	for _, state := range []State{Active, Failing, Paused, Disabled} {
		value := 0.0
		if s.endpoint.State == state {
			value = 1
		}
		p.metrics.state.WithLabelValues(label, string(state)).Set(value)
	}
}
