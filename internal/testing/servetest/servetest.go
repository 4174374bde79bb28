// Package servetest runs a server of this module within a test, on free ports of the loopback,
// and sends it requests.
package servetest

import (
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A Service runs until Stop, or until the test's end.
type Service struct {
	// Public and Admin are the base URLs of the two listeners.
	Public, Admin string

	cancel context.CancelFunc
	wait   func() error
	asked  atomic.Bool // the test asked for the error
}

// Start runs serve. The error of serve fails the test, unless the test asks for it.
func Start(t testing.TB, serve func(ctx context.Context, public, admin net.Listener) error) *Service {
	t.Helper()
	public, admin := Listen(t), Listen(t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		err := serve(ctx, public, admin)
		// A request to a service that has ended is refused, rather than left to wait.
		public.Close()
		admin.Close()
		ended <- err
	}()
	s := &Service{
		Public: "http://" + public.Addr().String(), Admin: "http://" + admin.Addr().String(),
		cancel: cancel, wait: sync.OnceValue(func() error { return <-ended }),
	}
	t.Cleanup(func() {
		cancel()
		if err := s.wait(); err != nil && !s.asked.Load() {
			t.Errorf("serve: %v", err)
		}
	})
	return s
}

// Wait waits until the service has ended by itself and returns what serve returned.
func (s *Service) Wait() error {
	s.asked.Store(true)
	return s.wait()
}

// Stop ends the service and returns what serve returned.
func (s *Service) Stop() error {
	s.cancel()
	return s.Wait()
}

// Metric returns the value of a metric, named with its labels as in /metrics, and fails
// the test if there is none.
func (s *Service) Metric(t testing.TB, name string) float64 {
	t.Helper()
	_, text := Get(t, s.Admin+"/metrics")
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			number, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			return number
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// Listen returns a listener on a free port, which is closed when the test ends.
func Listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() }) // its server may have closed it
	return l
}

// FreeAddress returns an address of the loopback that nothing listens on, for a server that is started later.
func FreeAddress(t testing.TB) string {
	t.Helper()
	l := Listen(t)
	defer l.Close()
	return l.Addr().String()
}

// Get returns the status and the body of the answer.
func Get(t testing.TB, url string) (status int, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return Do(t, r)
}

// client gives up on a server that does not answer, so that a test names it instead of never ending.
var client = &http.Client{Timeout: 2 * time.Minute}

// Do sends the request and returns the status and the body of the answer.
func Do(t testing.TB, r *http.Request) (status int, body string) {
	t.Helper()
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}
