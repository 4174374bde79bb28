package intake

import (
	"cmp"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"upcall/internal/admission"
	"upcall/internal/event"
)

// The reasons why a refusal is not kept.
const (
	droppedByRate     = "rate"     // too many in a short time
	droppedByQueue    = "queue"    // too many are waiting
	droppedByDatabase = "database" // it cannot be reached
	droppedByPanic    = "panic"    // a mistake of ours
)

// conflictRequestID is the reason of one kind of conflict; admission.ReasonBucketConflict is
// that of the other.
const conflictRequestID = "request_id_reused"

// Metrics counts requests.
type Metrics struct {
	requests        *prometheus.CounterVec
	seconds         prometheus.Histogram
	refusals        *prometheus.CounterVec
	refusalsDropped *prometheus.CounterVec
	conflicts       *prometheus.CounterVec
	verifyFailures  *prometheus.CounterVec
	known           *prometheus.HistogramVec
	knownBySource   map[event.Source]prometheus.Observer
}

// ObserveKnown counts an upload that was recorded, and how long after OSS stored it that was.
func (m *Metrics) ObserveKnown(e *event.Event, at time.Time) {
	if known := m.knownBySource[cmp.Or(e.Source, event.SourceCallback)]; known != nil {
		known.Observe(max(at.Sub(e.StoredAt()), 0).Seconds())
	}
}

// NewMetrics returns metrics that start at zero.
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
			Help: "Requests refused on the public listener, by reason.",
		}, []string{"reason"}),
		refusalsDropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "upcall_refusals_dropped_total",
			Help: "Refused callbacks that are not in upcall.refused_callbacks, by cause: rate, queue, database or panic.",
		}, []string{"cause"}),
		conflicts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "upcall_conflicts_total",
			Help: "Contradictory callbacks: bucket_conflict (header and body name different buckets) " +
				"or request_id_reused (a recent request ID came with another content).",
		}, []string{"reason"}),
		known: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "upcall_upload_known_seconds",
			Help: "Time from an upload to when this receiver recorded it, by what told of it. Of callbacks, " +
				"OSS's request id has the time at which the upload began, in whole seconds.",
			Buckets: []float64{1, 2, 3, 5, 10, 30, 60, 120, 180, 300, 600, 1800, 3600, 6 * 3600, 24 * 3600, 7 * 24 * 3600, 35 * 24 * 3600},
		}, []string{"source"}),
		verifyFailures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "upcall_verify_failures_total",
			Help: "Callbacks whose signature is invalid or could not be checked, by reason.",
		}, []string{"reason"}),
	}
	for _, cause := range []string{droppedByRate, droppedByQueue, droppedByDatabase, droppedByPanic} {
		m.refusalsDropped.WithLabelValues(cause) // 0 rather than absent
	}
	for _, reason := range []string{string(admission.ReasonBucketConflict), conflictRequestID} {
		m.conflicts.WithLabelValues(reason)
	}
	m.knownBySource = make(map[event.Source]prometheus.Observer)
	for _, source := range []event.Source{event.SourceCallback, event.SourceNotification, event.SourceReconcile} {
		m.knownBySource[source] = m.known.WithLabelValues(string(source))
	}
	return m
}

// Collectors returns the metrics for a registry.
func (m *Metrics) Collectors() []prometheus.Collector {
	return []prometheus.Collector{m.requests, m.seconds, m.refusals, m.refusalsDropped, m.conflicts, m.verifyFailures, m.known}
}
