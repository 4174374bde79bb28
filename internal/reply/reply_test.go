package reply

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"upcall/internal/callbackspec"
	"upcall/internal/event"
	"upcall/internal/testing/logtest"
	"upcall/internal/testing/metrictest"
	"upcall/internal/webhook"
)

func anEvent() *event.Event {
	return &event.Event{ID: uuid.New(), ReceivedAt: time.Now().UTC().Truncate(time.Microsecond), Source: event.SourceCallback,
		Callback: callbackspec.Callback{Bucket: "photos", Object: "a/é.jpg", Vars: map[string]json.RawMessage{"uid": json.RawMessage(`"7"`)}}}
}

// newHook returns a hook for a test. change may be nil.
func newHook(t *testing.T, url string, change func(*Config)) *Hook {
	t.Helper()
	cfg := Config{URL: url, Secret: webhook.NewSecret(), Timeout: MaxTimeout, Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&cfg)
	}
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// serve starts an application. It reads the question before it answers: only then does a server
// of net/http notice that the asker has gone.
func serve(t *testing.T, answer http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		answer(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// says answers with a text.
func says(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) }
}

// TestAsk holds that the question is that of a delivery, signed, and that the answer comes back
// as it was.
func TestAsk(t *testing.T) {
	t.Parallel()
	secret, first := webhook.NewSecret(), time.Date(2026, 11, 27, 8, 9, 10, 123456000, time.UTC)
	w, err := standardwebhooks.NewWebhook(secret.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	bodies := make(chan string, 1)
	url := serve(t, func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if err := w.Verify(body, r.Header); err != nil || r.Method != "POST" || r.URL.Path != "/reply" || r.URL.RawQuery != "a=1" ||
			r.Header.Get("Content-Type") != "application/cloudevents+json" || r.Header["Idempotency-Key"] != nil {
			t.Errorf("%v: %+v", err, r)
		}
		bodies <- r.Header.Get("webhook-id") + " " + string(body)
		io.WriteString(rw, "\r\n {\"b\": 1e400,\t\"a\":18446744073709551615.0, \"é\":\"<&>\\u2028\", \"a\":{}}\n")
	})
	const want = "{\"b\": 1e400,\t\"a\":18446744073709551615.0, \"é\":\"<&>\\u2028\", \"a\":{}}"
	e, found := anEvent(), error(nil)
	h := newHook(t, url+"/reply?a=1", func(c *Config) {
		c.Secret = secret
		c.Received = func(_ context.Context, id uuid.UUID, upload uuid.NullUUID) (time.Time, error) {
			if id != e.ID || upload != e.UploadID {
				t.Errorf("looks for %v, %v", id, upload)
			}
			return first, found
		}
	})
	for _, tt := range []struct {
		name   string
		repeat bool
		found  error
		at     time.Time
	}{
		{"the first time", false, nil, e.ReceivedAt},
		{"a repeat", true, nil, first},
		{"a repeat while PostgreSQL is away", true, event.ErrUnavailable, e.ReceivedAt},
	} {
		found = tt.found
		object, outcome := h.Ask(t.Context(), e, tt.repeat)
		if string(object) != want || outcome != replied {
			t.Errorf("%s: %s: %s", tt.name, outcome, object)
		}
		recorded := *e
		recorded.ReceivedAt = tt.at
		body, err := webhook.NewMessage(&recorded).Body()
		if err != nil {
			t.Fatal(err)
		}
		if got := <-bodies; got != e.ID.String()+" "+string(body) {
			t.Errorf("%s: asked with %s", tt.name, got)
		}
	}
	if got := metrictest.Values(t, h.Collectors()...)["upcall_reply_calls_total{"+replied+"}"]; got != 3 {
		t.Errorf("counted %v", got)
	}
}

// TestNoReply is the table of applications that fail. None holds up the uploader for longer
// than the time limit, and none is asked twice.
func TestNoReply(t *testing.T) {
	t.Parallel()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	never := serve(t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("a redirect was followed: %s", r.URL) })
	code := func(status int, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status); io.WriteString(w, text) }
	}
	raw := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				io.WriteString(conn, text)
				conn.Close()
			}
		}
	}
	for _, tt := range []struct {
		name    string
		answer  http.HandlerFunc // nil: the port is closed
		outcome string
		log     string
	}{
		{"hangs", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, timeout, "deadline"},
		{"drips", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				io.WriteString(w, " ")
				http.NewResponseController(w).Flush()
				time.Sleep(5 * time.Millisecond)
			}
		}, timeout, "deadline"},
		{"headers, then nothing", func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, `{"a":`)
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, timeout, "deadline"},
		{"closed port", nil, unreachable, "refused"},
		{"no answer", raw(""), unreachable, "EOF"},
		{"no HTTP", raw("hello\n"), unreachable, "malformed HTTP"},
		{"cut short", raw("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}"), unreachable, "unexpected EOF"},
		{"large headers", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 2*maxHeaders))
			io.WriteString(w, "{}")
		}, unreachable, "response header"},
		{"500", code(500, `{"a":1}`), status, "500 Internal Server Error"},
		{"404", code(404, `{"a":1}`), status, "404 Not Found"},
		{"redirect", http.RedirectHandler(never, http.StatusTemporaryRedirect).ServeHTTP, status, "307 Temporary Redirect"},
		{"204", code(204, ""), invalid, "empty"},
		{"nothing", says(""), invalid, "empty"},
		{"spaces", says(" \n"), invalid, "empty"},
		{"text", says("OK"), invalid, "begin with {"},
		{"page", says("<html>{}</html>"), invalid, "begin with {"},
		{"array", says(`[{"a":1}]`), invalid, "begin with {"},
		{"string", says(`"{}"`), invalid, "begin with {"},
		{"number", says(`7`), invalid, "begin with {"},
		{"true", says(`true`), invalid, "begin with {"},
		{"null", says(`null`), invalid, "begin with {"},
		{"byte order mark", says("\ufeff{}"), invalid, "begin with {"},
		{"not UTF-8", says("{\"a\":\"\xff\"}"), invalid, "UTF-8"},
		{"half of a character", says("{\"a\":\"\xed\xa0\x80\"}"), invalid, "UTF-8"},
		{"UTF-16", says("\x7b\x00\x7d\x00"), invalid, "not a JSON object"},
		{"open", says(`{"a":1`), invalid, "not a JSON object"},
		{"two objects", says(`{}{}`), invalid, "not a JSON object"},
		{"lines of objects", says("{}\n{}\n"), invalid, "not a JSON object"},
		{"comment", says(`{} // ok`), invalid, "not a JSON object"},
		{"comma at the end", says(`{"a":1,}`), invalid, "not a JSON object"},
		{"quotes of JavaScript", says(`{'a':1}`), invalid, "not a JSON object"},
		{"name without quotes", says(`{a:1}`), invalid, "not a JSON object"},
		{"NaN", says(`{"a":NaN}`), invalid, "not a JSON object"},
		{"control character", says("{\"a\":\"\x01\"}"), invalid, "not a JSON object"},
		{"too deep for encoding/json", says(strings.Repeat(`{"":`, 10_001) + "1" + strings.Repeat("}", 10_001)), invalid, "not a JSON object"},
		{"compressed", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write([]byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff\xab\xae\x05\x00\x43\xbf\xa6\xa3\x02\x00\x00\x00")) // {}
		}, invalid, "not a JSON object"},
		{"64 KiB and a byte", says("{" + strings.Repeat(" ", maxReply-1) + "}"), tooLarge, "64 KiB"},
		{"endless", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				io.WriteString(w, strings.Repeat(" ", 1<<14))
			}
		}, tooLarge, "64 KiB"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			url := "http://" + closed.Addr().String()
			var mu sync.Mutex
			asked := 0
			if tt.answer != nil {
				url = serve(t, func(w http.ResponseWriter, r *http.Request) {
					mu.Lock()
					asked++
					mu.Unlock()
					tt.answer(w, r)
				})
			}
			logger, log := logtest.New()
			h := newHook(t, url+"/?token=hunter2", func(c *Config) {
				c.Logger = logger
				if tt.outcome == timeout {
					c.Timeout = 50 * time.Millisecond
				}
			})
			object, outcome := h.Ask(t.Context(), anEvent(), false)
			if object != nil || outcome != tt.outcome {
				t.Errorf("%s: %q", outcome, object)
			}
			if got := metrictest.Values(t, h.Collectors()...)["upcall_reply_calls_total{"+tt.outcome+"}"]; got != 1 {
				t.Errorf("counted %v", got)
			}
			if got := log.String(); !strings.Contains(got, tt.log) || strings.Contains(got, "hunter2") || strings.Count(got, "\n") != 1 {
				t.Errorf("logged %s", got)
			}
			mu.Lock()
			defer mu.Unlock()
			if tt.answer != nil && asked != 1 {
				t.Errorf("asked %d times", asked)
			}
			if len(h.slots) != 0 {
				t.Error("a slot was not given back")
			}
		})
	}
}

// TestLongestReply holds that 64 KiB pass.
func TestLongestReply(t *testing.T) {
	t.Parallel()
	longest := `{"a":"` + strings.Repeat("x", maxReply-8) + `"}`
	h := newHook(t, serve(t, says(longest)), nil)
	if object, outcome := h.Ask(t.Context(), anEvent(), false); string(object) != longest || len(object) != 64<<10 {
		t.Errorf("%s: %d bytes", outcome, len(object))
	}
}

// TestTimeLimits holds that the earlier of the two limits counts, and that 0 is none.
func TestTimeLimits(t *testing.T) {
	t.Parallel()
	url := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	for name, limits := range map[string]struct{ own, callers time.Duration }{
		"its own":      {50 * time.Millisecond, time.Minute},
		"the caller's": {time.Second, 50 * time.Millisecond},
		"none":         {0, 50 * time.Millisecond},
		"over already": {time.Second, -time.Second},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), limits.callers)
		began := time.Now()
		object, outcome := newHook(t, url, func(c *Config) { c.Timeout = limits.own }).Ask(ctx, anEvent(), false)
		if took := time.Since(began); object != nil || outcome != timeout || took > 900*time.Millisecond {
			t.Errorf("%s: %s after %v", name, outcome, took)
		}
		cancel()
	}
}

// TestCanceled holds that a callback that OSS ended is no failure of the application.
func TestCanceled(t *testing.T) {
	t.Parallel()
	logger, log := logtest.New()
	ctx, cancel := context.WithCancel(t.Context())
	h := newHook(t, serve(t, func(_ http.ResponseWriter, r *http.Request) { cancel(); <-r.Context().Done() }), func(c *Config) { c.Logger = logger })
	if object, outcome := h.Ask(ctx, anEvent(), false); object != nil || outcome != canceled || log.String() != "" {
		t.Errorf("%s, logged %s", outcome, log.String())
	}
}
