package intake

import (
	"cmp"
	"log/slog"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"upcall/internal/admission"
	"upcall/internal/event"
	"upcall/internal/httpserver"
)

const (
	outcomeRecorded  = "recorded"
	outcomeSpooled   = "spooled" // in the spool or the stream
	outcomeDuplicate = "duplicate"
)

// A logEvent collects the log line of a request.
type logEvent struct {
	outcome  string // recorded, spooled, duplicate, or the code of the refusal
	refusal  *admission.Refusal
	conflict string            // why a recorded callback contradicts another
	reply    string            // what became of the call of the reply hook; "" if there was none
	request  admission.Request // without a body if that was not read
	event    *event.Event      // what is known of it; nil if the body was not read
	// captureAt is when it was refused, if it is to be captured.
	captureAt time.Time
	beginning []byte // of a body that is too large
}

// requestID returns the ID in the body, or else the one in the header.
func (e *logEvent) requestID() string { return cmp.Or(e.event.Callback.RequestID, e.request.RequestID) }

func seenIn(c *gin.Context) *logEvent { return httpserver.Event[logEvent](c) }

// panicked refuses a callback whose handler has panicked.
func (s *Server) panicked(c *gin.Context, err error) {
	if !c.Writer.Written() {
		s.refuse(c, admission.Ours(admission.ReasonPanic, err))
	}
}

// observe counts a request and writes its log line.
func (s *Server) observe(c *gin.Context, seen *logEvent, took time.Duration) {
	s.cfg.Metrics.requests.WithLabelValues(seen.outcome).Inc()
	s.cfg.Metrics.seconds.Observe(took.Seconds())
	if seen.outcome == outcomeRecorded || seen.outcome == outcomeSpooled {
		s.cfg.Metrics.ObserveKnown(seen.event, seen.event.ReceivedAt)
	}
	level := slog.LevelInfo
	switch r := seen.refusal; {
	case r == nil:
	case isScan(r, c.Request):
		level = slog.LevelDebug
	default:
		level = slog.LevelWarn
	}
	if !s.cfg.Logger.Enabled(c.Request.Context(), level) {
		return
	}
	remote, peer := s.cfg.Proxies.Remote(c.Request)
	var room [16]slog.Attr // the most that there can be
	attrs := append(room[:0],
		slog.String("method", c.Request.Method),
		slog.String("path", c.Request.URL.Path),
		slog.Int("status", c.Writer.Status()),
		slog.String("outcome", seen.outcome),
		slog.String("remote", remote),
		slog.String("peer", peer),
		slog.Int("bytes", len(seen.request.Body)),
		slog.Float64("took_ms", float64(took.Microseconds())/1000),
	)
	if r := seen.refusal; r != nil {
		attrs = append(attrs, slog.String("reason", string(r.Reason)))
		if r.Cause != nil {
			attrs = append(attrs, slog.String("error", r.Cause.Error()))
		}
	}
	attrs = append(attrs, slog.String("conflict", seen.conflict))
	if seen.reply != "" { // then there is no refusal
		attrs = append(attrs, slog.String("reply", seen.reply))
	}
	if e := seen.event; e != nil {
		if e.ID != uuid.Nil {
			attrs = append(attrs, slog.String("event_id", e.ID.String()))
		}
		if e.UploadID.Valid {
			attrs = append(attrs, slog.String("upload_id", e.UploadID.UUID.String()))
		}
		attrs = append(attrs, slog.String("bucket", e.Callback.Bucket), slog.String("object_key", e.Callback.Object),
			slog.String("request_id", e.Callback.RequestID))
	}
	httpserver.Log(c, s.cfg.Logger, level, "callback", attrs...)
}

// isScan reports whether a refused request is not even meant as a callback. Scanners of the whole
// internet ask for everything; a callback for a path that is not ours is a mistake in a setting.
func isScan(r *admission.Refusal, request *http.Request) bool {
	return (r.Code == admission.NotFound || r.Code == admission.MethodNotAllowed) && request.Header.Get("X-Oss-Pub-Key-Url") == ""
}
