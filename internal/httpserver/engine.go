package httpserver

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
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
	// A redirect is a failed callback to OSS, and takes the body from any other POST.
	engine.RedirectTrailingSlash = false
	// X-Forwarded-For is whatever the sender wrote.
	engine.ForwardedByClientIP = false
	return engine
}

const eventKey = "event"

// Event returns what is noted of a request on its way, for its log line. It is there behind
// [Observe].
func Event[E any](c *gin.Context) *E { return c.MustGet(eventKey).(*E) }

// Observe returns middleware that opens an event for each request and hands it to done at
// the end, to be logged and counted, with the time since the end of the headers. A panic is
// logged and handed to panicked, which answers if nothing was written yet: the process
// lives, and the sender sees no stack trace.
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

// Log writes the one log line of a request. It leaves out texts that are empty.
func Log(c *gin.Context, logger *slog.Logger, level slog.Level, message string, attrs ...slog.Attr) {
	attrs = slices.DeleteFunc(attrs, func(a slog.Attr) bool {
		return a.Value.Kind() == slog.KindString && a.Value.String() == ""
	})
	logger.LogAttrs(context.WithoutCancel(c.Request.Context()), level, message, attrs...)
}
