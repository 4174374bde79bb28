package confirm

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// measureEvery is how often the lag is measured.
const measureEvery = 5 * time.Second

type metrics struct {
	outcomes, requests            *prometheus.CounterVec
	dead                          prometheus.Counter
	lag, behind, waiting, working prometheus.Gauge
}

func newMetrics() *metrics {
	m := makeMetrics()
	for _, o := range []outcome{confirmed, disputed, gone, overwritten} {
		m.outcomes.WithLabelValues(string(o)) // 0 rather than absent, so that the first one shows as an increase
	}
	return m
}

func makeMetrics() *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	return &metrics{
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "upcall_confirm_outcomes_total",
			Help: "Events by what this receiver found their objects to be: confirmed, disputed, gone, or overwritten.",
		}, []string{"outcome"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "upcall_confirm_requests_total",
			Help: "Requests to OSS for objects by what it answered: found, missing, throttled, or failed."}, []string{"result"}),
		dead: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "upcall_confirm_dead_letters_total", Help: "Events that could not be confirmed; see upcall.confirm_retries."}),
		lag: gauge("upcall_confirm_lag_seconds",
			"Age of the oldest event that confirmation has not read yet. 0 at receivers that do not work for it."),
		behind: gauge("upcall_confirm_lag_events",
			"Events that confirmation has not read yet, up to 10000. 0 at receivers that do not work for it."),
		waiting: gauge("upcall_confirm_waiting",
			"Events that are to be looked at again. 0 at receivers that do not work for confirmation."),
		working: gauge("upcall_confirm_working", "1 at the receiver that works for confirmation."),
	}
}

// Collectors returns what /metrics shows of confirmation.
func (w *Worker) Collectors() []prometheus.Collector {
	m := w.metrics
	return []prometheus.Collector{m.outcomes, m.requests, m.dead, m.lag, m.behind, m.waiting, m.working}
}

// measure sets the gauges until ctx ends.
func (w *Worker) measure(ctx context.Context) {
	for sleep(ctx, measureEvery) {
		m, cursor := w.metrics, w.cursor.Load()
		if cursor == nil {
			m.lag.Set(0)
			m.behind.Set(0)
			m.waiting.Set(0)
			m.working.Set(0)
			continue
		}
		m.working.Set(1)
		if lag, err := w.config.Log.Lag(ctx, *cursor); err == nil {
			m.lag.Set(lag.Age.Seconds())
			m.behind.Set(float64(lag.Events))
		}
		if n, err := w.waiting(ctx); err == nil {
			m.waiting.Set(float64(n))
		}
	}
}
