package intake

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"upcall/internal/callbackspec"
)

const (
	outcomeRecorded  = "recorded"
	outcomeSpooled   = "spooled"
	outcomeDuplicate = "duplicate"
)

// A logEvent is the one log line of a request, filled in on its way.
type logEvent struct {
	outcome   string // recorded, spooled, duplicate, or the code of the refusal
	reason    string // label of the refusal
	err       error  // its cause
	conflict  string // label of the conflict of what was recorded
	body      []byte // nil if it was not read
	id        uuid.UUID
	uploadID  uuid.NullUUID
	requestID string // of the body, or else of the header
	callback  callbackspec.Callback
}

const eventKey = "event"

func eventOf(c *gin.Context) *logEvent { return c.MustGet(eventKey).(*logEvent) }

// observe opens the log event of a request, and writes and counts it at the end. A
// panic becomes a refusal: the process lives, and the sender sees no stack trace.
func (s *Server) observe(c *gin.Context) {
	started := time.Now()
	markHandled(c.Request.Context())
	event := &logEvent{}
	c.Set(eventKey, event)
	defer func() {
		if p := recover(); p != nil {
			s.cfg.Logger.ErrorContext(c.Request.Context(), "panic",
				slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
			if !c.Writer.Written() {
				s.refuse(c, &refusal{codeUnavailable, "the callback could not be recorded", "panic", fmt.Errorf("panic: %v", p)})
			}
		}
		took := time.Since(started)
		s.cfg.Metrics.request(event, took)
		s.log(c, event, took)
	}()
	c.Next()
}

func (s *Server) log(c *gin.Context, event *logEvent, took time.Duration) {
	level := slog.LevelInfo
	if event.reason != "" {
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
		slog.String("outcome", event.outcome),
		slog.String("remote", c.Request.RemoteAddr),
		slog.Int("bytes", len(event.body)),
		slog.Float64("took_ms", float64(took.Microseconds())/1000),
	)
	text := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, value))
		}
	}
	text("reason", event.reason)
	text("conflict", event.conflict)
	if event.err != nil {
		text("error", event.err.Error())
	}
	if event.id != uuid.Nil {
		text("event_id", event.id.String())
	}
	if event.uploadID.Valid {
		text("upload_id", event.uploadID.UUID.String())
	}
	text("bucket", event.callback.Bucket)
	text("object_key", event.callback.Object)
	text("request_id", event.callback.RequestID)
	s.cfg.Logger.LogAttrs(ctx, level, "callback", attrs...)
}
