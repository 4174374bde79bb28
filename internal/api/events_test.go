package api

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/apikey"
	"upcall/internal/eventstore"
	"upcall/internal/testing/wait"
)

// TestUnauthenticated checks that no call of the API answers without a key with enough right.
func TestUnauthenticated(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	issuers, hash, err := apikey.New("issuers")
	if err != nil {
		t.Fatal(err)
	}
	other := eventstore.APIKey{ID: "issuers", Hash: hash[:], Policy: "photos", CreatedAt: time.Now()}
	if err := eventstore.NewAPIKeys(w.pool).Add(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	revoked := w.key(t, "revoked", Operator)
	if err := eventstore.NewRoleKeys(w.pool).Revoke(t.Context(), "revoked"); err != nil {
		t.Fatal(err)
	}
	unknown, _, _ := apikey.New("viewer")
	for _, to := range w.routes() {
		method, path, _ := strings.Cut(to.pattern, " ")
		path = strings.ReplaceAll(path, "{id}", "x")
		for name, key := range map[string]string{"none": "", "the issuer's": issuers, "revoked": revoked, "another secret": unknown, "no key": "x"} {
			got := w.call(t, method, path, key, "")
			if to.role != "" && (got.status != http.StatusUnauthorized || got.body.Type != "urn:upcall:problem:unauthenticated" ||
				got.header.Get("WWW-Authenticate") == "" || got.header.Get("Content-Type") != "application/problem+json") {
				t.Errorf("%s with key %s: %d %s", to.pattern, name, got.status, got.text)
			}
		}
		if to.role == Operator {
			if got := w.call(t, method, path, w.viewer, ""); got.status != http.StatusForbidden {
				t.Errorf("%s with too little right: %d %s", to.pattern, got.status, got.text)
			}
		}
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	photos, videos := w.add(t, "photos", 3), w.add(t, "videos", 2)
	first := w.call(t, "GET", "/v1/events?limit=2", w.viewer, "")
	if diff := cmp.Diff(photos[:2], first.ids()); diff != "" || first.status != 200 {
		t.Fatalf("%d, first page (-want +got):\n%s", first.status, diff)
	}
	_, elsewhere := w.another(t, nil) // through another receiver
	rest := call(t, "GET", elsewhere+"/v1/events?after="+first.body.Next, w.viewer, "")
	if diff := cmp.Diff(append(photos[2:3:3], videos...), rest.ids()); diff != "" {
		t.Errorf("second page (-want +got):\n%s", diff)
	}
	end := w.call(t, "GET", "/v1/events?after="+rest.body.Next, w.viewer, "")
	if end.status != 200 || !strings.HasPrefix(end.text, `{"events":[],"next":"`) {
		t.Errorf("at the end: %d %s", end.status, end.text)
	}
	for query, want := range map[string][]string{
		"bucket=videos": videos, "key_prefix=videos/" + videos[1]: videos[1:], "var.user=42&bucket=videos&limit=1": videos[:1],
		"var.user=43": nil, "bucket=photos&after=" + first.body.Next: photos[2:], "after=now": nil,
	} {
		got := w.call(t, "GET", "/v1/events?"+query, w.viewer, "")
		if diff := cmp.Diff(want, got.ids()); diff != "" || got.status != 200 || got.body.Next == "" {
			t.Errorf("%s: %d (-want +got):\n%s", query, got.status, diff)
		}
	}
}

func TestEventsWait(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	now := w.call(t, "GET", "/v1/events?after=now", w.viewer, "")
	if got := w.call(t, "GET", "/v1/events?wait=700ms&after="+now.body.Next, w.viewer, ""); got.status != 200 || len(got.body.Events) != 0 {
		t.Errorf("a wait that is longer than the server's timeouts: %d %s", got.status, got.text)
	}
	answered := make(chan reply)
	go func() {
		answered <- w.call(t, "GET", "/v1/events?wait=30s&bucket=bbb&after="+now.body.Next, w.viewer, "")
	}()
	w.add(t, "a", 2) // does not match
	want := w.add(t, "bbb", 1)
	got := <-answered
	if diff := cmp.Diff(want, got.ids()); diff != "" {
		t.Errorf("%d (-want +got):\n%s", got.status, diff)
	}
	// It ends at once when the receiver stops.
	began := time.Now()
	go func() { answered <- w.call(t, "GET", "/v1/events?wait=30s&after="+got.body.Next, w.viewer, "") }()
	wait.Until(t, "the call waits", func() bool { return len(w.waiting) > 0 })
	w.Stop()
	if got := <-answered; len(got.body.Events) != 0 || time.Since(began) > 5*time.Second {
		t.Errorf("after Stop: %d %s, after %v", got.status, got.text, time.Since(began))
	}
}

func TestRefusedQueries(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	now := w.call(t, "GET", "/v1/events?after=now", w.viewer, "").body.Next
	for query, field := range map[string]string{
		"after=x": "after", "after=" + now[:63] + "!": "after", "after=oldest": "after", "after=" + now + "&after=" + now: "after",
		"limit=0": "limit", "limit=1001": "limit", "limit=x": "limit", "limit=": "limit", "wait=31s": "wait", "wait=-1s": "wait",
		"wait=5": "wait", "bucket=A": "bucket", "bucket=": "bucket", "key_prefix=%00": "key_prefix", "key_prefix=%ff": "key_prefix",
		"var.=x": "var.", "var.x:y=1": "var", "since=now": "since", "%zz": "query", "bucket=a&bucket=bbb": "bucket",
		"=x": "query",
	} {
		got := w.call(t, "GET", "/v1/events?"+query, w.viewer, "")
		if got.status != 400 || len(got.body.Errors) != 1 || got.body.Errors[0].Field != field || got.body.Errors[0].Detail == "" {
			t.Errorf("%s: %d %s", query, got.status, got.text)
		}
		if strings.HasPrefix(query, "limit") || strings.HasPrefix(query, "wait") {
			continue
		}
		if got := w.call(t, "GET", "/v1/events/stream?"+query, w.viewer, ""); got.status != 400 || len(got.body.Errors) != 1 {
			t.Errorf("stream %s: %d %s", query, got.status, got.text)
		}
	}
	for _, tt := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{"GET", "/v1/", 404, ""}, {"GET", "/v1/event", 404, ""}, {"POST", "/v1/events", 405, "GET"}, {"PUT", "/v1/events/stream", 405, "GET"},
	} {
		got := w.call(t, tt.method, tt.path, w.operator, "")
		if got.status != tt.status || got.header.Get("Allow") != tt.allow || got.body.Status != tt.status {
			t.Errorf("%s %s: %d %v %s", tt.method, tt.path, got.status, got.header, got.text)
		}
	}
}

func TestGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.add(t, "bbb", 1)
	old := w.call(t, "GET", "/v1/events?limit=1", w.viewer, "").body.Next
	w.add(t, "bbb", 2)
	// As retention does it when it drops a month.
	if _, err := w.pool.Exec(t.Context(), `WITH lost AS (
			DELETE FROM upcall.upload_events WHERE id IN (SELECT id FROM upcall.upload_events ORDER BY recorded_xid LIMIT 2) RETURNING recorded_xid, id
		) UPDATE upcall.feed_log SET (gone_xid, gone_id) = (SELECT recorded_xid, id FROM lost ORDER BY recorded_xid DESC LIMIT 1)`); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/v1/events", "/v1/events/stream"} {
		got := w.call(t, "GET", path+"?after="+old, w.viewer, "")
		if got.status != http.StatusGone || len(got.body.Oldest) != 64 {
			t.Fatalf("%s: %d %s", path, got.status, got.text)
		}
		if again := w.call(t, "GET", "/v1/events?after="+got.body.Oldest, w.viewer, ""); again.status != 200 {
			t.Errorf("from the oldest: %d %s", again.status, again.text)
		}
	}
}

func TestStream(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Ping = 100 * time.Millisecond })
	w.add(t, "other", 1)
	want := w.add(t, "bbb", 2)
	s := w.stream(t, w.url+"/v1/events/stream?bucket=bbb", "")
	h := s.response.Header
	if h.Get("Content-Type") != "text/event-stream" || h.Get("Cache-Control") != "no-store" || h.Get("X-Accel-Buffering") != "no" {
		t.Errorf("got %v", h)
	}
	if s.lines.Scan(); s.lines.Text() != ":" {
		t.Errorf("the first line is %q, want a comment", s.lines.Text())
	}
	s.lines.Scan()
	cursor, first := s.next(t)
	_, second := s.next(t)
	for range 10 { // past the server's timeouts
		for s.lines.Scan() && s.lines.Text() != ":" {
			t.Errorf("got the line %q, want comments", s.lines.Text())
		}
		s.lines.Scan()
	}
	want = append(want, w.add(t, "bbb", 1)...)
	_, third := s.next(t)
	if diff := cmp.Diff(want, []string{first, second, third}); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	_, elsewhere := w.another(t, nil) // goes on through another receiver, though the URL says otherwise
	again := w.stream(t, elsewhere+"/v1/events/stream?bucket=bbb&after=now", cursor)
	_, second = again.next(t)
	_, third = again.next(t)
	if diff := cmp.Diff(want[1:], []string{second, third}); diff != "" {
		t.Errorf("after Last-Event-ID (-want +got):\n%s", diff)
	}
	w.Stop()
	for s.lines.Scan() {
	}
	if err := s.lines.Err(); err != nil {
		t.Errorf("the stream did not end cleanly: %v", err)
	}
}
