package eventstore

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Batches counts group commits for /metrics: its Observe is a [Config.OnBatch].
type Batches struct{ rows, seconds prometheus.Histogram }

// NewBatches names the metrics prefix_batch_rows and prefix_commit_seconds. What describes the
// rows.
func NewBatches(prefix, what string) *Batches {
	return &Batches{
		rows: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    prefix + "_batch_rows",
			Help:    what + " in one group commit.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 11),
		}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    prefix + "_commit_seconds",
			Help:    "Time of one group commit, from the statement to PostgreSQL's answer.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2, 3, 5},
		}),
	}
}

// Observe counts one group commit.
func (b *Batches) Observe(rows int, took time.Duration) {
	b.rows.Observe(float64(rows))
	b.seconds.Observe(took.Seconds())
}

// Collectors returns the metrics for a registry.
func (b *Batches) Collectors() []prometheus.Collector {
	return []prometheus.Collector{b.rows, b.seconds}
}
