package intake

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"upcall/internal/callbackspec"
	"upcall/internal/event"
	"upcall/internal/recorder"
)

// TestDatabaseStalls checks that a callback that cannot be recorded is refused in time, and that
// the service recovers by itself.
func TestDatabaseStalls(t *testing.T) {
	t.Parallel()
	o := newOSS(t)
	away := &switchable{}
	s := serve(t, o, nil, func(c *Config) { away.Recorder, c.Recorder = c.Recorder, away })
	request := func(reqID string) *http.Request {
		return o.request(t, s.Public, path, string(callbackspec.Form), issued(t, "a.txt", reqID).body(t, callbackspec.Form))
	}
	away.stall(true)
	started := time.Now()
	got := do(t, request("R1"))
	if got.Code != 503 || got.Error.Code != "unavailable" || time.Since(started) > 5*time.Second {
		t.Errorf("after %s got %d %s", time.Since(started), got.Code, got.Raw)
	}
	away.stall(false)
	if got := do(t, request("R2")); got.Code != 200 {
		t.Errorf("after recovery got %d %s", got.Code, got.Raw)
	}
}

// switchable is a recorder that can be made to stall until the caller's deadline.
type switchable struct {
	Recorder
	mu      sync.Mutex
	stalled bool
}

func (s *switchable) stall(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stalled = on
}

func (s *switchable) Record(ctx context.Context, e *event.Event) (recorder.Outcome, error) {
	s.mu.Lock()
	stalled := s.stalled
	s.mu.Unlock()
	if stalled {
		<-ctx.Done()
		return recorder.Outcome{}, ctx.Err()
	}
	return s.Recorder.Record(ctx, e)
}

// TestDrain checks that a request accepted before the stop is answered.
func TestDrain(t *testing.T) {
	t.Parallel()
	o := newOSS(t)
	gate := &gated{entered: make(chan struct{}), open: make(chan struct{})}
	s := serve(t, o, nil, func(c *Config) { gate.Recorder, c.Recorder = c.Recorder, gate })
	answer := make(chan answered)
	go func() {
		answer <- do(t, o.request(t, s.Public, path, string(callbackspec.Form), issued(t, "a.txt", "R1").body(t, callbackspec.Form)))
	}()
	<-gate.entered
	stopped := make(chan error)
	go func() { stopped <- s.Stop() }()
	// Wait until the listener is closed, then release the request.
	for {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.Public, "http://"))
		if err != nil {
			break
		}
		conn.Close()
	}
	close(gate.open)
	if got := <-answer; got.Code != 200 {
		t.Errorf("the request in flight got %d %s", got.Code, got.Raw)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// gated is a recorder that blocks until it is opened.
type gated struct {
	Recorder
	entered, open chan struct{}
}

func (g *gated) Record(ctx context.Context, e *event.Event) (recorder.Outcome, error) {
	close(g.entered)
	<-g.open
	return g.Recorder.Record(ctx, e)
}

// TestPanic checks that the process keeps running, and that the sender does not learn the reason.
func TestPanic(t *testing.T) {
	t.Parallel()
	o := newOSS(t)
	s := serve(t, o, nil, func(c *Config) { c.Recorder = panicking{} })
	for range 2 {
		got := do(t, o.request(t, s.Public, path, string(callbackspec.Form), issued(t, "a.txt", "R1").body(t, callbackspec.Form)))
		if got.Code != 503 || got.Error.Code != "unavailable" || strings.Contains(got.Raw, "secret") {
			t.Errorf("got %d %s", got.Code, got.Raw)
		}
	}
}

type panicking struct{ Recorder }

func (panicking) Record(context.Context, *event.Event) (recorder.Outcome, error) { panic("secret") }

// TestOneLogEvent checks that each request has one log line, without its token.
func TestOneLogEvent(t *testing.T) {
	t.Parallel()
	o := newOSS(t)
	s := serve(t, o, nil, nil)
	u := issued(t, "a.txt", "R1")
	accepted := do(t, o.request(t, s.Public, path, string(callbackspec.Form), u.body(t, callbackspec.Form)))
	u.token = "k1.AAAA"
	u.reqID = "R2"
	do(t, o.request(t, s.Public, path, string(callbackspec.Form), u.body(t, callbackspec.Form)))
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	var lines []map[string]any
	for line := range strings.Lines(s.log.String()) {
		var event map[string]any
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatal(err)
		}
		if event["msg"] == "callback" {
			lines = append(lines, event)
		}
	}
	if len(lines) != 2 || lines[0]["event_id"] != accepted.EventID || lines[0]["outcome"] != "recorded" ||
		lines[1]["outcome"] != "bad_token" || lines[1]["reason"] != "token_forged" {
		t.Errorf("log: %s", s.log)
	}
	if strings.Contains(s.log.String(), "k1.") {
		t.Errorf("the log holds a token: %s", s.log)
	}
}

func TestAdmin(t *testing.T) {
	t.Parallel()
	o := newOSS(t)
	s := serve(t, o, nil, nil)
	body := issued(t, "a.txt", "R1").body(t, callbackspec.Form)
	for range 2 { // the second is a repeat
		do(t, o.request(t, s.Public, path, string(callbackspec.Form), body))
	}
	if got := get(t, s.Admin+"/livez"); got != "ok\n" {
		t.Errorf("livez: %s", got)
	}
	if got := get(t, s.Admin+"/readyz"); got != "ok\n" {
		t.Errorf("readyz: %s", got)
	}
	metrics := get(t, s.Admin+"/metrics")
	for _, want := range []string{
		`upcall_requests_total{outcome="recorded"} 1`,
		"upcall_batch_rows_sum 2",
		"upcall_commit_seconds_count 2",
		"upcall_queue_depth 0",
		`upcall_upload_known_seconds_count{source="callback"} 1`, // not the repeat
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	s.pool.Close()
	if got := get(t, s.Admin+"/readyz"); !strings.HasPrefix(got, "not ready: ") {
		t.Errorf("readyz without a database: %s", got)
	}
}
