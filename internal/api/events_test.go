package api

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/apikey"
	"upcall/internal/eventstore"
)

// TestUnauthenticated checks that no call of the API answers without a key with enough right.
func TestUnauthenticated(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	issuers, hash, err := apikey.New("issuers")
	if err != nil {
		t.Fatal(err)
	}
	if err := eventstore.NewAPIKeys(w.pool).Add(t.Context(), eventstore.APIKey{ID: "issuers", Hash: hash[:], Policy: "photos", CreatedAt: time.Now()}); err != nil {
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

func TestRefusedQueries(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	now := w.call(t, "GET", "/v1/events?after=now", w.viewer, "").body.Next
	for query, field := range map[string]string{
		"after=x": "after", "after=" + now[:63] + "!": "after", "after=oldest": "after", "after=" + now + "&after=" + now: "after",
		"limit=0": "limit", "limit=1001": "limit", "limit=x": "limit", "limit=": "limit", "wait=31s": "wait", "wait=-1s": "wait",
		"wait=5": "wait", "bucket=A": "bucket", "bucket=": "bucket", "key_prefix=%00": "key_prefix", "key_prefix=%ff": "key_prefix",
		"var.=x": "var.", "var.x:y=1": "var", "since=now": "since", "%zz": "query", "bucket=a&bucket=bbb": "bucket",
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
