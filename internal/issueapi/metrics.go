package issueapi

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics is what /metrics shows. Nothing in it reads a table.
type Metrics struct {
	registry      *prometheus.Registry
	requests      *prometheus.CounterVec
	seconds       *prometheus.HistogramVec
	batchRows     prometheus.Histogram
	commitSeconds prometheus.Histogram
}

// NewMetrics returns metrics in a registry of their own.
func NewMetrics() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "upcall_issuer_requests_total",
			Help: "Requests of applications by route and outcome: ok, page, or the kind of problem.",
		}, []string{"route", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "upcall_issuer_request_seconds",
			Help:    "Time from the end of a request's headers to its answer, by route.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20},
		}, []string{"route"}),
		batchRows: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "upcall_issuer_batch_rows",
			Help:    "Uploads in one group commit to the ledger.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 11),
		}),
		commitSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "upcall_issuer_commit_seconds",
			Help:    "Time of one group commit to the ledger.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2, 3, 5},
		}),
	}
	m.registry.MustRegister(m.requests, m.seconds, m.batchRows, m.commitSeconds,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Batch counts one group commit.
func (m *Metrics) Batch(rows int, took time.Duration) {
	m.batchRows.Observe(float64(rows))
	m.commitSeconds.Observe(took.Seconds())
}

func (m *Metrics) request(route, outcome string, took time.Duration) {
	m.requests.WithLabelValues(route, outcome).Inc()
	m.seconds.WithLabelValues(route).Observe(took.Seconds())
}

func (m *Metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}
