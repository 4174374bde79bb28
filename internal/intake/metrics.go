package intake

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"upcall/internal/spool"
)

// Why a refusal is not kept.
const (
	droppedByRate     = "rate"     // more came than are kept
	droppedByQueue    = "queue"    // more wait than may
	droppedByDatabase = "database" // it is away
	droppedByPanic    = "panic"    // a mistake of ours
)

// conflictRequestID is a conflict; reasonBuckets is the other.
const conflictRequestID = "request_id_reused"

// Metrics is what /metrics shows. Nothing in it reads a table.
type Metrics struct {
	registry        *prometheus.Registry
	requests        *prometheus.CounterVec
	seconds         prometheus.Histogram
	refusals        *prometheus.CounterVec
	refusalsDropped *prometheus.CounterVec
	conflicts       *prometheus.CounterVec
	verifyFailures  *prometheus.CounterVec
	batchRows       prometheus.Histogram
	commitSeconds   prometheus.Histogram
}

// NewMetrics returns metrics in a registry of their own.
func NewMetrics() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
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
			Help: "Callbacks that contradict: bucket_conflict, header and body name different buckets, and request_id_reused, another content came under a recent request id.",
		}, []string{"reason"}),
		verifyFailures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "upcall_verify_failures_total",
			Help: "Callbacks that package verify refused or could not check, by reason.",
		}, []string{"reason"}),
		batchRows: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "upcall_batch_rows",
			Help:    "Callbacks in one group commit.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 11),
		}),
		commitSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "upcall_commit_seconds",
			Help:    "Time of one group commit, from the statement to PostgreSQL's answer.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2, 3, 5},
		}),
	}
	for _, cause := range []string{droppedByRate, droppedByQueue, droppedByDatabase, droppedByPanic} {
		m.refusalsDropped.WithLabelValues(cause) // 0 rather than absent
	}
	for _, reason := range []string{reasonBuckets, conflictRequestID} {
		m.conflicts.WithLabelValues(reason)
	}
	m.registry.MustRegister(m.requests, m.seconds, m.refusals, m.refusalsDropped, m.conflicts, m.verifyFailures, m.batchRows, m.commitSeconds,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Batch counts one group commit.
func (m *Metrics) Batch(rows int, took time.Duration) {
	m.batchRows.Observe(float64(rows))
	m.commitSeconds.Observe(took.Seconds())
}

// WatchQueue has /metrics show how many callbacks wait for a commit.
func (m *Metrics) WatchQueue(depth func() int) {
	m.gauge("upcall_queue_depth", "Callbacks that wait for a group commit.", func() float64 { return float64(depth()) })
}

// WatchDatabase has /metrics show whether callbacks go to PostgreSQL.
func (m *Metrics) WatchDatabase(away func() bool) {
	m.gauge("upcall_database_away", "1 while PostgreSQL takes no callbacks, so that they go to the spool or are refused; else 0.",
		func() float64 {
			if away() {
				return 1
			}
			return 0
		})
}

// WatchSpool has /metrics show what the spool holds.
func (m *Metrics) WatchSpool(stats func() spool.Stats, now func() time.Time) {
	m.gauge("upcall_spool_depth", "Callbacks in the spool that wait for PostgreSQL.",
		func() float64 { return float64(stats().Queued) })
	m.gauge("upcall_spool_bytes", "Bytes that the spool's callbacks take on disk.",
		func() float64 { return float64(stats().Bytes) })
	m.gauge("upcall_spool_oldest_seconds", "Age of the callback that waits longest in the spool; 0 if none waits.",
		func() float64 {
			oldest := stats().Oldest
			if oldest.IsZero() {
				return 0
			}
			return max(0, now().Sub(oldest).Seconds())
		})
	m.gauge("upcall_spool_rejected", "Callbacks in the spool that PostgreSQL refused and that are set aside.",
		func() float64 { return float64(stats().Rejected) })
	m.gauge("upcall_spool_damaged_files", "Spool files that were found damaged and set aside.",
		func() float64 { return float64(stats().Damaged) })
}

func (m *Metrics) gauge(name, help string, value func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
}

func (m *Metrics) request(event *logEvent, took time.Duration) {
	m.requests.WithLabelValues(event.outcome).Inc()
	m.seconds.Observe(took.Seconds())
}

func (m *Metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}
