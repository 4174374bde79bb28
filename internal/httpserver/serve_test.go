package httpserver

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"upcall/internal/testing/servetest"
)

var discard = slog.New(slog.DiscardHandler)

func site(t *testing.T, handler http.Handler) Site {
	t.Helper()
	return Site{New(handler, discard), servetest.Listen(t)}
}

func (s Site) get(t *testing.T, path string) (int, string) {
	t.Helper()
	return servetest.Get(t, "http://"+s.Listener.Addr().String()+path)
}

// TestServe: accepted requests are answered, and the last site works until then.
func TestServe(t *testing.T) {
	t.Parallel()
	accepted, finish := make(chan struct{}), make(chan struct{})
	first := site(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { close(accepted); <-finish }))
	last := site(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	ctx, stop := context.WithCancel(t.Context())
	served, answered := make(chan error, 1), make(chan int, 1)
	go func() { served <- Serve(ctx, discard, time.Minute, first, last) }()
	go func() {
		status, _ := first.get(t, "/")
		answered <- status
	}()
	<-accepted
	stop()
	for { // until the first site accepts no more connections
		conn, err := net.Dial("tcp", first.Listener.Addr().String())
		if err != nil {
			break
		}
		conn.Close()
	}
	if status, _ := last.get(t, "/"); status != http.StatusOK {
		t.Errorf("the last site answered %d", status)
	}
	close(finish)
	if status := <-answered; status != http.StatusOK {
		t.Errorf("the first site answered %d", status)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// TestDrain: a request that takes too long is cut off.
func TestDrain(t *testing.T) {
	t.Parallel()
	accepted, cut := make(chan struct{}), make(chan struct{})
	slow := site(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { close(accepted); <-r.Context().Done(); close(cut) }))
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, discard, time.Millisecond, slow) }()
	conn, err := net.Dial("tcp", slow.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-accepted
	stop()
	if err := <-served; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	<-cut
}

// TestBrokenListener: if one listener fails, all stop.
func TestBrokenListener(t *testing.T) {
	t.Parallel()
	good, broken := site(t, http.NotFoundHandler()), site(t, http.NotFoundHandler())
	broken.Listener.Close()
	if err := Serve(t.Context(), discard, time.Minute, good, broken); !errors.Is(err, net.ErrClosed) {
		t.Errorf("error %v", err)
	}
}
