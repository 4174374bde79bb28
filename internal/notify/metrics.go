package notify

import (
	"log/slog"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"

	"upcall/internal/admission"
	"upcall/internal/event"
	"upcall/internal/httpserver"
)

// The results of events.
const (
	resultRecorded  = "recorded"
	resultSpooled   = "spooled"
	resultDuplicate = "duplicate"
	resultIgnored   = "ignored"
)

type metrics struct {
	results  *prometheus.CounterVec
	refusals *prometheus.CounterVec
	seconds  prometheus.Histogram
}

func newMetrics() *metrics {
	m := &metrics{
		results: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "upcall_notifications_total",
			Help: "Events in OSS's notifications by result: recorded, spooled, duplicate, or ignored (of a kind that does not count).",
		}, []string{"result"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "upcall_notification_refusals_total",
			Help: "Notifications refused, and events in them, by reason.",
		}, []string{"reason"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "upcall_notification_seconds",
			Help:    "Time from the end of a notification's headers to its answer.",
			Buckets: []float64{.001, .005, .01, .05, .1, .5, 1, 2, 4, 5},
		}),
	}
	for _, result := range []string{resultRecorded, resultSpooled, resultDuplicate, resultIgnored} {
		m.results.WithLabelValues(result) // 0 rather than absent
	}
	return m
}

// Collectors returns the metrics for a registry.
func (s *Server) Collectors() []prometheus.Collector {
	return []prometheus.Collector{s.metrics.results, s.metrics.refusals, s.metrics.seconds}
}

// A logEvent collects the log line of a push.
type logEvent struct {
	request   admission.Request
	messageID string             // of MNS
	refusal   *admission.Refusal // of the push, or else of an event
	ignored   int
	events    int          // that count
	refused   int          // of those
	first     *event.Event // of them
	result    string       // of the first; "" if it was refused
}

// note notes an event and its result.
func (e *logEvent) note(told *event.Event, result string) {
	if e.events++; e.events == 1 {
		e.first, e.result = told, result
	}
}

// observe writes the log line of a push.
func (s *Server) observe(c *gin.Context, seen *logEvent, took time.Duration) {
	s.metrics.seconds.Observe(took.Seconds())
	remote, peer := s.cfg.Proxies.Remote(c.Request)
	attrs := append(make([]slog.Attr, 0, 20),
		slog.String("method", c.Request.Method),
		slog.String("path", c.Request.URL.Path),
		slog.Int("status", c.Writer.Status()),
		slog.String("remote", remote),
		slog.String("peer", peer),
		slog.Int("bytes", len(seen.request.Body)),
		slog.Float64("took_ms", float64(took.Microseconds())/1000),
		slog.String("message_id", seen.messageID),
		slog.Int("events", seen.events),
		slog.Int("refused", seen.refused),
		slog.Int("ignored", seen.ignored),
		slog.String("result", seen.result),
	)
	level := slog.LevelInfo
	if r := seen.refusal; r != nil {
		level = slog.LevelWarn
		attrs = append(attrs, slog.String("reason", string(r.Reason)))
		if r.Cause != nil {
			attrs = append(attrs, slog.String("error", r.Cause.Error()))
		}
	}
	if e := seen.first; e != nil {
		attrs = append(attrs, slog.String("event_id", e.ID.String()), slog.String("operation", e.Callback.Operation),
			slog.String("bucket", e.Callback.Bucket), slog.String("object_key", e.Callback.Object),
			slog.String("request_id", e.Callback.RequestID))
		if e.UploadID.Valid {
			attrs = append(attrs, slog.String("upload_id", e.UploadID.UUID.String()))
		}
	}
	httpserver.Log(c, s.cfg.Logger, level, "notification", attrs...)
}
