package reply

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"upcall/internal/testing/logtest"
	"upcall/internal/testing/metrictest"
	"upcall/internal/testing/wait"
	"upcall/internal/webhook"
)

// TestMostCalls holds that there are 64 calls at once, and that none waits for a slot.
func TestMostCalls(t *testing.T) {
	t.Parallel()
	release, arrived := make(chan struct{}), make(chan struct{}, maxCalls)
	h := newHook(t, serve(t, func(w http.ResponseWriter, _ *http.Request) {
		arrived <- struct{}{}
		<-release
		io.WriteString(w, "{}")
	}), func(c *Config) { c.Timeout = 0 })
	var calls sync.WaitGroup
	for range maxCalls {
		calls.Go(func() {
			if _, outcome := h.Ask(context.Background(), anEvent(), false); outcome != replied {
				t.Errorf("a call among 64: %s", outcome)
			}
		})
	}
	for range maxCalls {
		<-arrived
	}
	if got := metrictest.Values(t, h.Collectors()...)["upcall_reply_calls_in_flight"]; got != maxCalls {
		t.Errorf("%v in flight", got)
	}
	if object, outcome := h.Ask(t.Context(), anEvent(), false); object != nil || outcome != busy { // hangs if it waits
		t.Errorf("the 65th: %s", outcome)
	}
	close(release)
	calls.Wait()
	if _, outcome := h.Ask(t.Context(), anEvent(), false); outcome != replied {
		t.Errorf("afterwards: %s", outcome)
	}
}

// TestDeadConnection holds that a kept connection on which the application has gone costs no
// reply: as after its restart.
func TestDeadConnection(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for conns := 0; ; conns++ {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			const answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
			request := make([]byte, 1<<16)
			conn.Read(request)
			io.WriteString(conn, answer)
			if conns == 0 {
				conn.Read(request[:1]) // the second request, which gets no answer
			}
			conn.Close()
		}
	}()
	h := newHook(t, "http://"+listener.Addr().String(), nil)
	for range 2 {
		if object, outcome := h.Ask(t.Context(), anEvent(), false); string(object) != "{}" {
			t.Errorf("%s: %q", outcome, object)
		}
	}
}

// TestLogIsBounded holds that there is one line in ten seconds, which counts the others.
func TestLogIsBounded(t *testing.T) {
	t.Parallel()
	logger, log := logtest.New()
	now := time.Now()
	h := newHook(t, serve(t, says("no")), func(c *Config) { c.Logger, c.Now = logger, func() time.Time { return now } })
	lines := func() int { return strings.Count(log.String(), "reply hook failed") }
	for range 4 {
		h.Ask(t.Context(), anEvent(), false)
	}
	if got := lines(); got != 1 {
		t.Errorf("%d lines at once", got)
	}
	now = now.Add(logEvery)
	h.Ask(t.Context(), anEvent(), false)
	if got := log.String(); lines() != 2 || !strings.Contains(got, `"failed_since_last_line":3`) ||
		!strings.Contains(got, `"outcome":"invalid"`) {
		t.Errorf("logged %s", got)
	}
}

// TestNoEnvironment holds that no proxy of the environment is used.
func TestNoEnvironment(t *testing.T) {
	t.Parallel()
	if newHook(t, "https://app.example.com", nil).transport.Proxy != nil {
		t.Error("there is a proxy")
	}
}

// TestIdle holds that a hook that is not asked runs nothing, and keeps connections otherwise.
func TestIdle(t *testing.T) {
	t.Parallel()
	addresses := make(chan string, 2)
	h := newHook(t, serve(t, func(w http.ResponseWriter, r *http.Request) { addresses <- r.RemoteAddr; io.WriteString(w, "{}") }), nil)
	h.Ask(t.Context(), anEvent(), false)
	first := <-addresses
	wait.Until(t, "the connection is kept", func() bool {
		h.Ask(t.Context(), anEvent(), false)
		return <-addresses == first
	})
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   error
		says   string
	}{
		{"no URL", func(c *Config) { c.URL = "" }, webhook.ErrURL, "UPCALL_REPLY_URL: there is no URL"},
		{"another scheme", func(c *Config) { c.URL = "ftp://app/hunter2" }, webhook.ErrURL, "UPCALL_REPLY_URL: it is not a URL"},
		{"no scheme", func(c *Config) { c.URL = "app:8080/hunter2" }, webhook.ErrURL, "UPCALL_REPLY_URL: it is not a URL"},
		{"password", func(c *Config) { c.URL = "http://a:hunter2@app/" }, webhook.ErrURL, "password"},
		{"no secret", func(c *Config) { c.Secret = webhook.Secret{} }, ErrSecret, "UPCALL_REPLY_SECRET: it is missing"},
		{"negative", func(c *Config) { c.Timeout = -1 }, ErrTimeout, "UPCALL_REPLY_TIMEOUT: -1ns is not between 0s and 3.8s"},
		{"too long", func(c *Config) { c.Timeout = MaxTimeout + 1 }, ErrTimeout, "is not between"},
	} {
		cfg := Config{URL: "http://10.0.0.1:8080/reply", Secret: webhook.NewSecret(), Logger: slog.New(slog.DiscardHandler)}
		if _, err := New(cfg); err != nil {
			t.Fatal(err)
		}
		tt.change(&cfg)
		_, err := New(cfg)
		if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	err := Config{Timeout: time.Hour}.Check()
	for _, want := range []error{webhook.ErrURL, ErrSecret, ErrTimeout} {
		if !errors.Is(err, want) {
			t.Errorf("not all mistakes at once: %v", err)
		}
	}
}
