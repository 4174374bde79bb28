package httpserver

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
)

// release keeps Gin from printing its routes.
var release = sync.OnceFunc(func() { gin.SetMode(gin.ReleaseMode) })

// NewEngine returns an engine without routes.
func NewEngine() *gin.Engine {
	release()
	engine := gin.New()
	// OSS treats a redirect as a failed callback, and other clients repeat a POST without its body.
	engine.RedirectTrailingSlash = false
	// Anyone can set X-Forwarded-For; see Proxies.
	engine.ForwardedByClientIP = false
	return engine
}

const eventKey = "event"

// Event returns the event of a request that passed through [Observe], to note things for
// its log line.
func Event[E any](c *gin.Context) *E { return c.MustGet(eventKey).(*E) }

// Observe returns middleware that creates an event for each request and finally passes it to
// done, to be logged and counted, with the time since the end of the headers. It logs a
// panic and calls panicked, which answers if nothing was written yet: the process lives on,
// and the sender does not see a stack trace.
func Observe[E any](logger *slog.Logger, panicked func(*gin.Context, error), done func(*gin.Context, *E, time.Duration)) gin.HandlerFunc {
	return func(c *gin.Context) {
		started := time.Now()
		event := new(E)
		c.Set(eventKey, event)
		defer func() {
			if p := recover(); p != nil {
				logger.ErrorContext(c.Request.Context(), "panic", slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
				panicked(c, fmt.Errorf("panic: %v", p))
			}
			done(c, event, time.Since(started))
		}()
		c.Next()
	}
}

// maxLogged is the most of a string that is logged, in bytes: more than an object key has. A
// stranger chooses the path, and most bytes are longer as JSON.
const maxLogged = 2 << 10

// Log writes the log line of a request, without empty strings, and with long ones cut off. It
// changes attrs.
func Log(c *gin.Context, logger *slog.Logger, level slog.Level, message string, attrs ...slog.Attr) {
	ctx := context.WithoutCancel(c.Request.Context())
	if !logger.Enabled(ctx, level) {
		return
	}
	kept := attrs[:0]
	for _, a := range attrs {
		if a.Value.Kind() == slog.KindString {
			text := a.Value.String()
			if text == "" {
				continue
			}
			if len(text) > maxLogged {
				a.Value = slog.StringValue(strings.ToValidUTF8(text[:maxLogged], "\uFFFD") + "…")
			}
		}
		kept = append(kept, a)
	}
	// As Logger.LogAttrs does, but without looking for the caller, whom no line names.
	record := slog.NewRecord(time.Now(), level, message, 0)
	record.AddAttrs(kept...)
	_ = logger.Handler().Handle(ctx, record)
}
