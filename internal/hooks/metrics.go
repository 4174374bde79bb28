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
	// endpoints that come and go do not fill the memory of what collects them. Its label is not a
	// name that an endpoint can have.
	maxLabels   = 500
	otherLabel  = "_other"
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
		Help: "Age of the oldest event that an endpoint was not told of yet, retries apart; while it is paused or disabled, of the first event " +
			"after its place. Only of endpoints that this receiver works for.",
	}, []string{"endpoint"})
	m.events = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "upcall_hook_lag_events",
		Help: "Events in the log after the place of an endpoint, up to 10000. Only of endpoints that this receiver works for.",
	}, []string{"endpoint"})
	m.state = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "upcall_hook_state",
		Help: "1 for the state of an endpoint: active, failing (only probes are sent), paused or disabled. " +
			"Only of endpoints that this receiver works for; of those with the label _other, how many there are.",
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
	switch name, ok := m.labels[e.ID]; {
	case ok && name == e.Name:
		return name
	case ok: // it was renamed
		m.forgetLabel(name)
	case len(m.labels) >= maxLabels:
		return otherLabel
	}
	m.labels[e.ID] = e.Name
	return e.Name
}

func (m *metrics) forgetLabel(name string) {
	of := prometheus.Labels{"endpoint": name}
	m.attempts.DeletePartialMatch(of)
	m.forgetGauges(name)
}

func (m *metrics) forgetGauges(name string) {
	of := prometheus.Labels{"endpoint": name}
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

// A level is what the metrics say of the endpoints with one label.
type level struct {
	seconds, events float64 // of the one that is furthest behind
	states          map[State]int
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
		levels := make(map[string]*level)
		for _, l := range lanes {
			if s := l.standing.Load(); s != nil {
				p.look(ctx, s, levels)
			}
		}
		p.metrics.show(levels)
	}
}

// look adds where a lane stands. One that does not read, because its endpoint is paused or
// disabled, does not know how far it is behind; nor does one that has more behind it than its
// window holds.
func (p *Pump) look(ctx context.Context, s *standing, levels map[string]*level) {
	label, seconds, events := p.metrics.label(s.endpoint), 0.0, float64(s.waiting)
	if !s.oldest.IsZero() {
		seconds = max(0, p.now().Sub(s.oldest).Seconds())
	}
	stopped := s.endpoint.State != Active && s.endpoint.State != Failing
	if label != otherLabel && (stopped || s.behind && s.waiting > 0) { // a query each, so not for any number
		if lag, err := p.config.Log.LagOfAll(ctx, s.cursor); err == nil {
			events = max(events, float64(lag.Events))
			if stopped {
				seconds = max(seconds, lag.Age.Seconds())
			}
		}
	}
	one := levels[label]
	if one == nil {
		one = &level{states: make(map[State]int)}
		levels[label] = one
	}
	one.seconds, one.events = max(one.seconds, seconds), max(one.events, events)
	one.states[s.endpoint.State]++
}

func (m *metrics) show(levels map[string]*level) {
	for label, one := range levels {
		m.lag.WithLabelValues(label).Set(one.seconds)
		m.events.WithLabelValues(label).Set(one.events)
		for _, state := range []State{Active, Failing, Paused, Disabled} {
			m.state.WithLabelValues(label, string(state)).Set(float64(one.states[state]))
		}
	}
	if levels[otherLabel] == nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.forgetGauges(otherLabel)
	}
}
