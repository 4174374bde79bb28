package httpserver

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"upcall/internal/testing/logtest"
)

type noted struct{ key, nothing string }

// TestObserve: each request has one log line, even after a panic, and the line has no empty
// strings.
func TestObserve(t *testing.T) {
	t.Parallel()
	logger, log := logtest.New()
	engine := NewEngine()
	engine.Use(Observe(logger, func(c *gin.Context, err error) {
		c.String(http.StatusServiceUnavailable, "sorry")
	}, func(c *gin.Context, n *noted, took time.Duration) {
		Log(c, logger, slog.LevelInfo, "request", slog.Int("status", c.Writer.Status()),
			slog.String("key", n.key), slog.String("nothing", n.nothing), slog.Bool("timed", took > 0))
	}))
	engine.GET("/good", func(c *gin.Context) { Event[noted](c).key = "a" })
	engine.GET("/bad", func(*gin.Context) { panic("a secret state") })
	for path, want := range map[string]int{"/good": http.StatusOK, "/bad": http.StatusServiceUnavailable, "/good/": http.StatusNotFound} {
		answer := httptest.NewRecorder()
		engine.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, path, nil))
		if answer.Code != want || strings.Contains(answer.Body.String(), "secret") {
			t.Errorf("%s: %d %s", path, answer.Code, answer.Body)
		}
	}
	text := log.String()
	for want, times := range map[string]int{
		`"msg":"request"`: 3, `"timed":true`: 3, `"key":"a"`: 1, `"key"`: 1, `"nothing"`: 0, `"status":503`: 1,
		`"msg":"panic","panic":"a secret state","stack":"`: 1,
	} {
		if got := strings.Count(text, want); got != times {
			t.Errorf("got %d times %s, want %d:\n%s", got, want, times, text)
		}
	}
}
