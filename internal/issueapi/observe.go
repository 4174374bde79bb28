package issueapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"upcall/internal/policy"
)

// Outcomes of requests that were not refused.
const (
	outcomeOK   = "ok"
	outcomePage = "page"
)

// A logEvent is the one log line of a request, filled in on its way.
type logEvent struct {
	outcome  string // ok, page, or the kind of problem
	rules    string // that were broken
	err      error  // what the caller is not told
	keyID    string // of whom the key has proven
	uploadID uuid.UUID
	bucket   string
	key      string
}

// issued notes an upload, also one whose row could not be written. One that was not made
// has no id.
func (e *logEvent) issued(id uuid.UUID, g policy.Grant) {
	if id != uuid.Nil {
		e.uploadID, e.bucket, e.key = id, g.Bucket, g.Key
	}
}

const eventKey = "event"

func eventOf(c *gin.Context) *logEvent { return c.MustGet(eventKey).(*logEvent) }

// observe opens the log event of a request, and writes and counts it at the end. A
// panic becomes a refusal: the process lives, and the caller sees no stack trace.
func (s *Server) observe(c *gin.Context) {
	started := time.Now()
	event := &logEvent{}
	c.Set(eventKey, event)
	defer func() {
		if p := recover(); p != nil {
			event.err = fmt.Errorf("panic: %v", p)
			s.cfg.Logger.ErrorContext(c.Request.Context(), "panic", slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
			if !c.Writer.Written() {
				refuse(c, asProblem(event.err))
			}
		}
		took := time.Since(started)
		s.cfg.Metrics.request(route(c), event.outcome, took)
		s.log(c, event, took)
	}()
	c.Next()
}

// route is the pattern that a request matched. A path itself would let strangers make
// as many time series as they like.
func route(c *gin.Context) string {
	if c.FullPath() == "" {
		return "none"
	}
	return c.Request.Method + " " + c.FullPath()
}

func (s *Server) log(c *gin.Context, event *logEvent, took time.Duration) {
	level := slog.LevelInfo
	if event.rules != "" {
		level = slog.LevelWarn
	}
	ctx := context.WithoutCancel(c.Request.Context())
	if !s.cfg.Logger.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 12)
	attrs = append(attrs,
		slog.String("route", route(c)),
		slog.Int("status", c.Writer.Status()),
		slog.String("outcome", event.outcome),
		slog.String("remote", c.Request.RemoteAddr),
		slog.Duration("took", took),
	)
	text := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, value))
		}
	}
	text("api_key", event.keyID)
	text("rules", event.rules)
	if event.err != nil {
		text("error", event.err.Error())
	}
	if event.uploadID != uuid.Nil {
		text("upload_id", event.uploadID.String())
	}
	text("bucket", event.bucket)
	text("object_key", event.key)
	s.cfg.Logger.LogAttrs(ctx, level, "request", attrs...)
}

// writeJSON writes the whole answer at once.
func writeJSON(c *gin.Context, status int, contentType string, answer any) {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false) // URLs are full of ampersands
	if err := enc.Encode(answer); err != nil {
		panic("issueapi: answers always marshal: " + err.Error())
	}
	header := c.Writer.Header()
	header.Set("Content-Length", strconv.Itoa(body.Len()))
	// A presigned URL is as good as a password for as long as it lives: no cache between
	// here and the application may keep it.
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	c.Data(status, contentType, body.Bytes())
}
