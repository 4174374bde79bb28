package rollup

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"upcall/internal/feed"
)

// measureEvery is how often the lag is measured.
const measureEvery = 5 * time.Second

type metrics struct {
	events  prometheus.Counter
	dead    prometheus.Counter
	seconds prometheus.Histogram
	lag     prometheus.Gauge
	behind  prometheus.Gauge
	working prometheus.Gauge
}

func newMetrics() *metrics {
	return &metrics{
		events: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "upcall_rollup_events_total", Help: "Events that this receiver has counted in roll-ups."}),
		dead: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "upcall_rollup_dead_letters_total",
			Help: "Events that roll-ups could not take in as a whole, as keys that are too long for an index; " +
				"see upcall.rollup_dead_letters."}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "upcall_rollup_batch_seconds", Help: "Time of one transaction that counts events.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5}}),
		lag: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "upcall_rollup_lag_seconds",
			Help: "Age of the oldest event that is not in the roll-ups yet. 0 at receivers that do not work for them."}),
		behind: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "upcall_rollup_lag_events",
			Help: "Events that are not in the roll-ups yet, up to 10000. 0 at receivers that do not work for them."}),
		working: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "upcall_rollup_working", Help: "1 at the receiver that works for the roll-ups."}),
	}
}

// Collectors returns what /metrics shows of roll-ups.
func (w *Worker) Collectors() []prometheus.Collector {
	m := w.metrics
	return []prometheus.Collector{m.events, m.dead, m.seconds, m.lag, m.behind, m.working}
}

// measure sets the gauges of the lag until ctx ends.
func (w *Worker) measure(ctx context.Context) {
	for sleep(ctx, measureEvery) {
		cursor := w.cursor.Load()
		if cursor == nil {
			w.metrics.lag.Set(0)
			w.metrics.behind.Set(0)
			w.metrics.working.Set(0)
			continue
		}
		w.metrics.working.Set(1)
		if lag, err := w.config.Log.Lag(ctx, *cursor); err == nil {
			w.metrics.lag.Set(lag.Age.Seconds())
			w.metrics.behind.Set(float64(lag.Events))
		}
	}
}

// Behind returns a line if there are events that the roll-ups do not have yet.
func (w *Worker) Behind(ctx context.Context) ([]string, error) {
	consumers, err := feed.ListConsumers(ctx, w.config.Pool)
	if err != nil {
		return nil, err
	}
	for _, c := range consumers {
		if c.Name != Consumer {
			continue
		}
		lag, err := w.config.Log.Lag(ctx, c.Cursor)
		if err != nil || lag.Events == 0 {
			return nil, err
		}
		return []string{fmt.Sprintf("roll-ups: %d events", lag.Events)}, nil
	}
	return []string{"roll-ups: not begun"}, nil
}
