package listen

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"upcall/internal/webhook"
)

// noon is when lines are printed.
var noon = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)

func newListener(t *testing.T, cfg Config) *Listener {
	t.Helper()
	cfg.Now = func() time.Time { return noon }
	l, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// deliver sends a body with an id, signed by the reference library, and returns the status.
func deliver(t *testing.T, l *Listener, secret webhook.Secret, at time.Time, id, body string) int {
	t.Helper()
	signer, err := standardwebhooks.NewWebhook(secret.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	signature, err := signer.Sign(id, at, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/any/path", strings.NewReader(body))
	r.Header.Set("Webhook-Id", id)
	r.Header.Set("Webhook-Timestamp", fmt.Sprint(at.Unix()))
	r.Header.Set("Webhook-Signature", signature)
	answer := httptest.NewRecorder()
	l.ServeHTTP(answer, r)
	return answer.Code
}

func event(id, data string) string {
	return fmt.Sprintf(`{"id":%q,"type":"upcall.upload.recorded.v1","data":%s}`, id, data)
}

func TestPrinted(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ body, want string }{
		{event("1", `{"bucket":"demo","object_key":"a/é.jpg","size":7,"mime_type":"image/jpeg",
			"vars":{"uid":"42","n":1,"album":"summer 2026"}}`),
			`verified recorded: a/é.jpg in demo, 7 bytes, image/jpeg, album="summer 2026", n=1, uid=42, event 1`},
		{event("2", `{"bucket":"demo","object_key":null,"size":null,"mime_type":null,"vars":{}}`), "verified recorded: ? in demo, event 2"},
		{event("3", `{"bucket":"demo","object_key":"a\n12:00:00 verified\u001b[31m","vars":{"a\rb":"\u0007","c":""}}`),
			`verified recorded: "a\n12:00:00 verified\x1b[31m" in demo, "a\rb"="\a", c="", event 3`},
		{`{"id":"4","type":"upcall.test.v1","data":{}}`, "verified test: ? in ?, event 4"},
		{`{"id":"5","type":"upcall.upload.gone.v1","data":{"bucket":"b","object_key":"k"}}`, "verified gone: k in b, event 5"},
	} {
		var out bytes.Buffer
		secret := webhook.NewSecret()
		l := newListener(t, Config{Secret: secret, Out: &out})
		if got := deliver(t, l, secret, time.Now(), "1", tt.body); got != http.StatusNoContent {
			t.Errorf("%s: %d", tt.body, got)
		}
		if diff := cmp.Diff("12:00:00 "+tt.want+"\n", out.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.body, diff)
		}
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	secret, good, now := webhook.NewSecret(), event("1", "{}"), time.Now()
	for name, tt := range map[string]struct {
		secret webhook.Secret
		at     time.Time
		id     string
		body   string
		want   int
	}{
		"another secret": {webhook.NewSecret(), now, "1", good, 401},
		"too old":        {secret, now.Add(-6 * time.Minute), "1", good, 401},
		"too new":        {secret, now.Add(6 * time.Minute), "1", good, 401},
		"no id":          {secret, now, "", good, 401},
		"no event":       {secret, now, "1", "hello", 400},
		"event of no id": {secret, now, "1", "{}", 400},
		"too large":      {secret, now, "1", event("1", `"`+strings.Repeat("a", maxBody)+`"`), 400},
	} {
		var out bytes.Buffer
		l := newListener(t, Config{Secret: secret, Out: &out})
		if got := deliver(t, l, tt.secret, tt.at, tt.id, tt.body); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
		if !strings.HasPrefix(out.String(), "12:00:00 refused ") || strings.Count(out.String(), "\n") != 1 {
			t.Errorf("%s: printed %q", name, &out)
		}
	}

	l := newListener(t, Config{Secret: secret, Out: io.Discard})
	answer := httptest.NewRecorder()
	l.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	if answer.Code != http.StatusMethodNotAllowed || answer.Header().Get("Allow") != "POST" {
		t.Errorf("GET: %d, %v", answer.Code, answer.Header())
	}
}

// TestOnce: an event is printed once, unless printing failed.
func TestOnce(t *testing.T) {
	t.Parallel()
	var out failing
	var notes bytes.Buffer
	secret := webhook.NewSecret()
	l := newListener(t, Config{Secret: secret, Out: &out, Notes: &notes, JSON: true})
	out.err = errors.New("no space left")
	body := "{\n \"id\":\"1\", \"data\":{}}"
	if got := deliver(t, l, secret, time.Now(), "1", body); got != http.StatusInternalServerError {
		t.Errorf("printing failed: %d", got)
	}
	out.err = nil
	for range 3 {
		if got := deliver(t, l, secret, time.Now(), "1", body); got != http.StatusNoContent {
			t.Errorf("%d", got)
		}
	}
	if got, want := out.String(), `{"id":"1","data":{}}`+"\n"; got != want {
		t.Errorf("printed %q, want %q", got, want)
	}
	if got := strings.Count(notes.String(), "12:00:00 again    : ? in ?, event 1\n"); got != 2 {
		t.Errorf("%d notes in %q", got, &notes)
	}
}

// TestKnown: no more events are remembered than maxKnown, and the oldest is forgotten first.
func TestKnown(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	l := newListener(t, Config{Secret: webhook.NewSecret(), Out: &out})
	once := func(n int) (printed bool) {
		out.Reset()
		if err := l.once(delivery{ID: fmt.Sprint(n)}, nil); err != nil {
			t.Fatal(err)
		}
		return strings.Contains(out.String(), "verified")
	}
	for n := range maxKnown + 3 {
		if !once(n) {
			t.Fatalf("event %d is not printed", n)
		}
	}
	if len(l.known) != maxKnown || len(l.ids) != maxKnown {
		t.Errorf("%d and %d are remembered", len(l.known), len(l.ids))
	}
	if once(3) || once(maxKnown+2) || !once(2) || once(4) {
		t.Error("not the oldest was forgotten")
	}
}

type failing struct {
	bytes.Buffer
	err error
}

func (f *failing) Write(p []byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	return f.Buffer.Write(p)
}
