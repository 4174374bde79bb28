package intake

import (
	"context"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"upcall/internal/admission"
	"upcall/internal/event"
	"upcall/internal/testing/logtest"
	"upcall/internal/testing/servetest"
	"upcall/internal/verify"
)

// A page is another handler on the listener of callbacks.
type page struct{ handled chan bool }

func (p page) Register(public gin.IRoutes) {
	public.GET("/page", func(c *gin.Context) {
		conn, ok := c.Request.Context().Value(protocolKey{}).(*protocolConn)
		p.handled <- ok && conn.handled.Load()
		c.Status(http.StatusNoContent)
	})
}

func newPlain(t *testing.T, refusals RefusalStore) *Server {
	t.Helper()
	logger, _ := logtest.New()
	server, err := New(Config{
		Verifier: new(verify.Verifier), Recorder: instant{}, Metrics: NewMetrics(), Refusals: refusals,
		Admission: admission.Config{TokenPolicy: admission.TokenOff}, Logger: logger, Now: func() time.Time { return noon },
	})
	if err != nil {
		t.Fatal(err)
	}
	return server
}

// TestOtherRoutes checks that another handler answers on the listener, that its requests count as
// handled, so that nothing else is written to their connections, and that they are no callbacks.
func TestOtherRoutes(t *testing.T) {
	t.Parallel()
	server := newPlain(t, nil)
	other := page{make(chan bool, 1)}
	server.Add(other)
	running := servetest.Start(t, func(ctx context.Context, public, _ net.Listener) error { return server.Serve(ctx, public) })
	if code, body := servetest.Get(t, running.Public+"/page"); code != http.StatusNoContent || body != "" {
		t.Errorf("answered %d %s", code, body)
	}
	if !<-other.handled {
		t.Error("the connection does not know that the request has reached a handler")
	}
	if code, _ := servetest.Get(t, running.Public+"/pages"); code != http.StatusNotFound {
		t.Errorf("another path is answered %d", code)
	}
}

// TestRefused checks that refusals of others are kept as those of callbacks are: not those that say
// nothing about the sender, and few of each reason.
func TestRefused(t *testing.T) {
	t.Parallel()
	server := newPlain(t, &stuck{})
	described := 0
	note := func(code admission.Code, reason admission.Reason) {
		server.Refused(&admission.Refusal{Code: code, Reason: reason}, noon, func() event.RefusedCallback {
			described++
			return event.RefusedCallback{Reason: string(reason)}
		})
	}
	for _, code := range []admission.Code{admission.Unavailable, admission.NotFound, admission.MethodNotAllowed} {
		note(code, "a")
	}
	note(admission.BadToken, admission.ReasonTokenRevoked) // the recorder keeps it
	if described > 0 || len(server.refusals.queue) > 0 {
		t.Errorf("%d were described, %d kept", described, len(server.refusals.queue))
	}
	for range 1000 {
		note(admission.BadToken, "b")
	}
	if described != refusalsOfOneAtOnce || len(server.refusals.queue) != refusalsOfOneAtOnce {
		t.Errorf("%d were described, %d kept, want %d", described, len(server.refusals.queue), refusalsOfOneAtOnce)
	}
	if row, err := server.refusals.describe(<-server.refusals.queue); err != nil || row.Reason != "b" {
		t.Errorf("kept %v, %v", row, err)
	}
	none := newPlain(t, nil)
	none.Refused(&admission.Refusal{Code: admission.BadToken}, noon, func() event.RefusedCallback { panic("nobody keeps it") })
}
