package intake

import (
	"io"
	"log/slog"
	"net/http"
	"testing"

	"github.com/gin-gonic/gin"

	"upcall/internal/admission"
	"upcall/internal/verify"
)

// TestTraceIsOff holds that without tracing nothing stands before the handlers, and that with it the trace is around
// everything, notifications too.
func TestTraceIsOff(t *testing.T) {
	t.Parallel()
	verifier, err := verify.New(verify.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		trace gin.HandlerFunc
		want  int // handlers before those of routes
	}{"off": {nil, 2}, "on": {func(c *gin.Context) { c.AbortWithStatus(http.StatusTeapot) }, 3}} {
		server, err := New(Config{Verifier: verifier, Recorder: instant{}, Metrics: NewMetrics(), Trace: tt.trace,
			Admission: admission.Config{Tokens: keyring(t)},
			Logger:    slog.New(slog.NewJSONHandler(io.Discard, nil))})
		if err != nil {
			t.Fatal(err)
		}
		server.Add(another{})
		engine := server.Public().(*gin.Engine)
		if len(engine.Handlers) != tt.want {
			t.Errorf("%s: %d handlers", name, len(engine.Handlers))
		}
		others := 0
		for _, route := range engine.Routes() {
			if route.Path == "/another" {
				others++
			}
		}
		if others != 1 {
			t.Errorf("%s: the routes are %v", name, engine.Routes())
		}
	}
}

// another is a feed that is not callbacks.
type another struct{}

func (another) Register(public gin.IRoutes) { public.POST("/another", func(*gin.Context) {}) }
