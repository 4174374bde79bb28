package intake

import (
	"io"
	"net/http"

	"github.com/gin-gonic/gin"

	"upcall/internal/admission"
	"upcall/internal/capture"
)

// Captures keeps refused callbacks as they came, as capture.Dir does. It is an interface so that
// tests can fill it.
type Captures interface {
	// Put keeps a request, or drops it. It must not block.
	Put(r *capture.Request)
	// Drop counts one that is not captured.
	Drop(cause string)
}

// isCaptured reports whether a refused request is worth a look. A 503 and an upload that was revoked
// say nothing about the request, and scanners' requests would push out those of OSS.
func isCaptured(r *admission.Refusal, request *http.Request) bool {
	return r.Code != admission.Unavailable && r.Reason != admission.ReasonTokenRevoked && !isScan(r, request)
}

// capture passes a refused callback on after it was answered, and what that needs: nothing of it is
// before the answer, nor in the time that is measured, or traced.
func (s *Server) capture(c *gin.Context) {
	c.Next()
	seen := seenIn(c)
	if seen.captureAt.IsZero() {
		return
	}
	r := &capture.Request{Reason: seen.refusal.Reason, At: seen.captureAt, Method: c.Request.Method, Target: c.Request.RequestURI,
		Host: c.Request.Host, Header: c.Request.Header, Body: seen.request.Body}
	if r.Body == nil {
		r.Body = seen.beginning
	}
	if r.Body == nil && r.Header.Get("Expect") == "" { // a client that waits for 100 sends none
		// The refusal was about the head, or the length. Otherwise net/http would read and drop more, and the
		// listener's deadline bounds both.
		c.Writer.Flush()
		r.Body, _ = io.ReadAll(io.LimitReader(c.Request.Body, admission.MaxBody+1)) // what came of it is what is kept
	}
	s.cfg.Captures.Put(r)
}
