package intake

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"upcall/internal/admission"
)

// Why a refusal is not kept.
const (
	droppedByRate     = "rate"     // more came than are kept
	droppedByQueue    = "queue"    // more wait than may
	droppedByDatabase = "database" // it is away
	droppedByPanic    = "panic"    // a mistake of ours
)

// conflictRequestID is a conflict; admission.ReasonBucketConflict is the other.
const conflictRequestID = "request_id_reused"

// Metrics counts requests.
type Metrics struct {
	requests        *prometheus.CounterVec
	seconds         prometheus.Histogram
	refusals        *prometheus.CounterVec
	refusalsDropped *prometheus.CounterVec
	conflicts       *prometheus.CounterVec
	verifyFailures  *prometheus.CounterVec
}

// NewMetrics returns metrics that have counted nothing.
func NewMetrics() *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "upcall_requests_total",
			Help: "Requests on the public listener by outcome: recorded, spooled, duplicate, or the error code of the answer.",
		}, []string{"outcome"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "upcall_request_seconds",
			Help:    "Time from the end of a request's headers to its answer.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2, 3, 4, 5},
		}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "upcall_refusals_total",
			Help: "Requests on the public listener that were not accepted, by reason.",
		}, []string{"reason"}),
		refusalsDropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "upcall_refusals_dropped_total",
			Help: "Refused callbacks that are not in upcall.refused_callbacks, by cause: rate, queue, database or panic.",
		}, []string{"cause"}),
		conflicts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "upcall_conflicts_total",
			Help: "Callbacks that contradict: bucket_conflict, header and body name different buckets, " +
				"and request_id_reused, another content came under a recent request id.",
		}, []string{"reason"}),
		verifyFailures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "upcall_verify_failures_total",
			Help: "Callbacks that package verify refused or could not check, by reason.",
		}, []string{"reason"}),
	}
	for _, cause := range []string{droppedByRate, droppedByQueue, droppedByDatabase, droppedByPanic} {
		m.refusalsDropped.WithLabelValues(cause) // 0 rather than absent
	}
	for _, reason := range []string{string(admission.ReasonBucketConflict), conflictRequestID} {
		m.conflicts.WithLabelValues(reason)
	}
	return m
}

// Collectors returns what /metrics shows of the requests.
func (m *Metrics) Collectors() []prometheus.Collector {
	return []prometheus.Collector{m.requests, m.seconds, m.refusals, m.refusalsDropped, m.conflicts, m.verifyFailures}
}

func (m *Metrics) request(outcome string, took time.Duration) {
	m.requests.WithLabelValues(outcome).Inc()
	m.seconds.Observe(took.Seconds())
}
