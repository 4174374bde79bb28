package intake

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"upcall/internal/admission"
	"upcall/internal/event"
)

const (
	outcomeRecorded  = "recorded"
	outcomeSpooled   = "spooled"
	outcomeDuplicate = "duplicate"
)

// A logEvent is the one log line of a request, filled in on its way.
type logEvent struct {
	outcome  string // recorded, spooled, duplicate, or the code of the refusal
	refusal  *admission.Refusal
	conflict string            // label of the conflict of what was recorded
	request  admission.Request // without a body if it was not read
	event    *event.Event      // what was learned of it; nil if it was not read
}

// requestID returns the id that the upload had: the body's, or else the header's.
func (e *logEvent) requestID() string { return cmp.Or(e.event.Callback.RequestID, e.request.RequestID) }

const seenKey = "seen"

func seenIn(c *gin.Context) *logEvent { return c.MustGet(seenKey).(*logEvent) }

// observe opens the log event of a request, and writes and counts it at the end. A
// panic becomes a refusal: the process lives, and the sender sees no stack trace.
func (s *Server) observe(c *gin.Context) {
	started := time.Now()
	markHandled(c.Request.Context())
	seen := &logEvent{}
	c.Set(seenKey, seen)
	defer func() {
		if p := recover(); p != nil {
			s.cfg.Logger.ErrorContext(c.Request.Context(), "panic",
				slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
			if !c.Writer.Written() {
				s.refuse(c, ours(admission.ReasonPanic, fmt.Errorf("panic: %v", p)))
			}
		}
		took := time.Since(started)
		s.cfg.Metrics.request(seen.outcome, took)
		s.log(c, seen, took)
	}()
	c.Next()
}

func (s *Server) log(c *gin.Context, seen *logEvent, took time.Duration) {
	level := slog.LevelInfo
	if seen.refusal != nil {
		level = slog.LevelWarn
	}
	ctx := context.WithoutCancel(c.Request.Context())
	if !s.cfg.Logger.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 16)
	attrs = append(attrs,
		slog.String("method", c.Request.Method),
		slog.String("path", c.Request.URL.Path),
		slog.Int("status", c.Writer.Status()),
		slog.String("outcome", seen.outcome),
		slog.String("remote", c.Request.RemoteAddr),
		slog.Int("bytes", len(seen.request.Body)),
		slog.Float64("took_ms", float64(took.Microseconds())/1000),
	)
	text := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, value))
		}
	}
	if r := seen.refusal; r != nil {
		text("reason", string(r.Reason))
		if r.Cause != nil {
			text("error", r.Cause.Error())
		}
	}
	text("conflict", seen.conflict)
	if e := seen.event; e != nil {
		if e.ID != uuid.Nil {
			text("event_id", e.ID.String())
		}
		if e.UploadID.Valid {
			text("upload_id", e.UploadID.UUID.String())
		}
		text("bucket", e.Callback.Bucket)
		text("object_key", e.Callback.Object)
		text("request_id", e.Callback.RequestID)
	}
	s.cfg.Logger.LogAttrs(ctx, level, "callback", attrs...)
}
