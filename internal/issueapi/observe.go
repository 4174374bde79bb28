package issueapi

import (
	"log/slog"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"upcall/internal/httpserver"
	"upcall/internal/policy"
)

// The outcomes of requests that are not refused.
const (
	outcomeOK   = "ok"
	outcomePage = "page"
)

// A logEvent collects the log line of a request.
type logEvent struct {
	outcome  string // ok, page, or the kind of problem
	rules    string // that the request breaks
	err      error  // only for the log
	keyID    string // once the key is verified
	uploadID string
	bucket   string
	key      string
}

// issued notes an upload, even if its row could not be written. The id is zero if there is no
// upload.
func (e *logEvent) issued(id uuid.UUID, g policy.Grant) {
	if id != uuid.Nil {
		e.uploadID, e.bucket, e.key = id.String(), g.Bucket, g.Key
	}
}

func eventOf(c *gin.Context) *logEvent { return httpserver.Event[logEvent](c) }

// panicked refuses a request whose handler has panicked.
func (s *Server) panicked(c *gin.Context, err error) {
	eventOf(c).err = err
	if !c.Writer.Written() {
		refuse(c, asProblem(err))
	}
}

// route returns the pattern that a request matches. With the path itself, strangers could
// create as many time series as they like.
func route(c *gin.Context) string {
	if c.FullPath() == "" {
		return "none"
	}
	return c.Request.Method + " " + c.FullPath()
}

// observe counts a request and writes its log line.
func (s *Server) observe(c *gin.Context, event *logEvent, took time.Duration) {
	s.cfg.Metrics.requests.WithLabelValues(route(c), event.outcome).Inc()
	s.cfg.Metrics.seconds.WithLabelValues(route(c)).Observe(took.Seconds())
	level, failure := slog.LevelInfo, ""
	switch {
	case c.FullPath() == "": // a scanner asks for everything
		level = slog.LevelDebug
	case event.rules != "":
		level = slog.LevelWarn
	}
	if event.err != nil {
		failure = event.err.Error()
	}
	remote, peer := s.cfg.Proxies.Remote(c.Request)
	httpserver.Log(c, s.cfg.Logger, level, "request",
		slog.String("route", route(c)),
		slog.Int("status", c.Writer.Status()),
		slog.String("outcome", event.outcome),
		slog.String("remote", remote),
		slog.String("peer", peer),
		slog.Float64("took_ms", float64(took.Microseconds())/1000),
		slog.String("api_key", event.keyID),
		slog.String("rules", event.rules),
		slog.String("error", failure),
		slog.String("upload_id", event.uploadID),
		slog.String("bucket", event.bucket),
		slog.String("object_key", event.key),
	)
}

// writeJSON marshals the answer completely before it writes it.
func writeJSON(c *gin.Context, status int, contentType string, answer any) {
	body, err := marshalAnswer(answer)
	if err != nil {
		panic("issueapi: answers always marshal: " + err.Error())
	}
	header := c.Writer.Header()
	header.Set("Content-Length", strconv.Itoa(len(body)))
	// Until it expires, a presigned URL is as sensitive as a password: no cache may keep it.
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	c.Data(status, contentType, body)
}
