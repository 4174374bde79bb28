package reconcile

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are those of the runs of one process.
type Metrics struct {
	requests  *prometheus.CounterVec
	throttled prometheus.Counter
	runs      *prometheus.CounterVec
	objects   *prometheus.GaugeVec
	last      *prometheus.GaugeVec
}

// NewMetrics returns metrics at zero.
func NewMetrics() *Metrics {
	return &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "upcall_reconcile_requests_total",
			Help: "Requests to OSS of runs that compare buckets with the log, by operation: list or head."},
			[]string{"operation"}),
		throttled: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "upcall_reconcile_throttled_total", Help: "Such requests that OSS refused because there were too many."}),
		runs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "upcall_reconcile_runs_total",
			Help: "Runs that this receiver ended, by result: done, failed, or running if another was under way."},
			[]string{"result"}),
		objects: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "upcall_reconcile_objects",
			Help: "What the last run of this receiver found, by bucket and state: listed, known, missing, recovered, vanished, " +
				"foreign or too_old."},
			[]string{"bucket", "state"}),
		last: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "upcall_reconcile_last_success_timestamp_seconds",
			Help: "When the last run of this receiver ended that was complete, by bucket."},
			[]string{"bucket"}),
	}
}

// Collectors returns what /metrics shows.
func (m *Metrics) Collectors() []prometheus.Collector {
	return []prometheus.Collector{m.requests, m.throttled, m.runs, m.objects, m.last}
}

func (m *Metrics) request(operation string) { m.requests.WithLabelValues(operation).Inc() }
func (m *Metrics) throttle()                { m.throttled.Inc() }

func (m *Metrics) ended(bucket string, c Counts, err error, now time.Time) {
	switch {
	case errors.Is(err, ErrRunning):
		m.runs.WithLabelValues("running").Inc()
		return
	case err != nil:
		m.runs.WithLabelValues("failed").Inc()
		return
	}
	m.runs.WithLabelValues("done").Inc()
	for state, n := range map[string]int64{"listed": c.Listed, "known": c.Known, "missing": c.Missing, "recovered": c.Recovered,
		"vanished": c.Vanished, "foreign": c.Foreign, "too_old": c.TooOld} {
		m.objects.WithLabelValues(bucket, state).Set(float64(n))
	}
	m.last.WithLabelValues(bucket).Set(float64(now.Unix()))
}
