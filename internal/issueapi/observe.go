package issueapi

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"upcall/internal/httpserver"
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

func eventOf(c *gin.Context) *logEvent { return httpserver.Event[logEvent](c) }

// panicked refuses a request that a mistake of ours has ended.
func (s *Server) panicked(c *gin.Context, err error) {
	eventOf(c).err = err
	if !c.Writer.Written() {
		refuse(c, asProblem(err))
	}
}

// route is the pattern that a request matched. A path itself would let strangers make
// as many time series as they like.
func route(c *gin.Context) string {
	if c.FullPath() == "" {
		return "none"
	}
	return c.Request.Method + " " + c.FullPath()
}

// observe counts a request and writes its log line.
func (s *Server) observe(c *gin.Context, event *logEvent, took time.Duration) {
	s.cfg.Metrics.request(route(c), event.outcome, took)
	level, failure, uploadID := slog.LevelInfo, "", ""
	if event.rules != "" {
		level = slog.LevelWarn
	}
	if event.err != nil {
		failure = event.err.Error()
	}
	if event.uploadID != uuid.Nil {
		uploadID = event.uploadID.String()
	}
	httpserver.Log(c, s.cfg.Logger, level, "request",
		slog.String("route", route(c)),
		slog.Int("status", c.Writer.Status()),
		slog.String("outcome", event.outcome),
		slog.String("remote", c.Request.RemoteAddr),
		slog.Duration("took", took),
		slog.String("api_key", event.keyID),
		slog.String("rules", event.rules),
		slog.String("error", failure),
		slog.String("upload_id", uploadID),
		slog.String("bucket", event.bucket),
		slog.String("object_key", event.key),
	)
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
