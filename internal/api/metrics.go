package api

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics count requests and what is open.
type metrics struct {
	requests *prometheus.CounterVec
	open     *prometheus.GaugeVec
	events   *prometheus.CounterVec
	dropped  prometheus.Counter
}

// The kinds of calls that events are told by, and that may wait.
const (
	byPoll   = "poll"
	byStream = "stream"
)

func newMetrics() *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "upcall_api_requests_total",
			Help: "Requests to the API that have ended, by route and status.",
		}, []string{"route", "status"}),
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "upcall_api_open",
			Help: "Calls that are open: streams, and polls and other calls that may wait. At most " + strconv.Itoa(mostWaiting) + ".",
		}, []string{"kind"}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "upcall_api_events_total",
			Help: "Events that were told, by polls and by streams.",
		}, []string{"kind"}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "upcall_api_dropped_total",
			Help: "Streams that ended because their clients took nothing for too long.",
		}),
	}
	for _, kind := range []string{byPoll, byStream} {
		m.open.WithLabelValues(kind)
		m.events.WithLabelValues(kind)
	}
	return m
}

// Collectors returns the metrics for a registry.
func (s *Server) Collectors() []prometheus.Collector {
	return []prometheus.Collector{s.metrics.requests, s.metrics.open, s.metrics.events, s.metrics.dropped}
}

// ended counts a request. A client that left before there was an answer has the status 0.
func (m *metrics) ended(to route, status int) {
	m.requests.WithLabelValues(to.name(), strconv.Itoa(status)).Inc()
}
