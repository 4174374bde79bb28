package fold

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"upcall/internal/eventstore"
)

type metrics struct {
	outcomes *prometheus.CounterVec
	overdue  prometheus.Gauge
}

func newMetrics() *metrics {
	m := &metrics{
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "upcall_notifications_settled_total",
			Help: "Notifications that were settled by this receiver, by what became of them.",
		}, []string{"outcome"}),
		overdue: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "upcall_notifications_overdue_seconds",
			Help: "For how long the first notification has been due that is not settled; 0 if none is.",
		}),
	}
	for _, outcome := range []eventstore.Outcome{
		eventstore.OutcomeKnown, eventstore.OutcomeRecorded, eventstore.OutcomeForeign, eventstore.OutcomeRevoked,
		eventstore.OutcomeTooOld, eventstore.OutcomeRemoval, eventstore.OutcomeUnrecorded,
	} {
		m.outcomes.WithLabelValues(string(outcome))
	}
	return m
}

// Collectors returns the worker's metrics.
func (w *Worker) Collectors() []prometheus.Collector {
	return []prometheus.Collector{w.metrics.outcomes, w.metrics.overdue}
}

func (m *metrics) settled(outcome eventstore.Outcome, n int64) {
	m.outcomes.WithLabelValues(string(outcome)).Add(float64(n))
}

// wait notes since when the first notification waits, if that is before what is due.
func (m *metrics) wait(since, due time.Time) {
	overdue := due.Sub(since)
	if since.IsZero() || overdue < 0 {
		overdue = 0
	}
	m.overdue.Set(overdue.Seconds())
}
