package issueapi

import (
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/issueapi/page"
)

// TestPolicy: a page learns what it may offer, and nothing of the callback.
func TestPolicy(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	got := s.call(t, http.MethodGet, "/v1/policy", s.photos, "")
	want := map[string]any{
		"name": "photos", "buckets": []any{"demo"}, "key_prefixes": []any{"photos/web/"},
		"key_templates": []any{"made/${apikey.id}/${date}/${uuid}-${filename}"}, "content_types": []any{"image/jpeg", "image/png"},
		"max_size": 20.0 * (1 << 20), "max_expiry_seconds": 3600.0, "required_vars": []any{"uid"}, "allowed_vars": []any{"album"},
	}
	if diff := cmp.Diff(want, got.json); got.status != http.StatusOK || diff != "" {
		t.Errorf("%d (-want +got):\n%s", got.status, diff)
	}
	if got := s.call(t, http.MethodGet, "/v1/policy", s.films, ""); got.status != http.StatusOK ||
		!cmp.Equal(got.json["required_vars"], []any{}) || !cmp.Equal(got.json["key_prefixes"], []any{"*"}) {
		t.Errorf("%d %s", got.status, got.raw)
	}
	for name, key := range map[string]string{"no key": "", "a forged one": forged(s.photos)} {
		if got := s.call(t, http.MethodGet, "/v1/policy", key, ""); got.status != http.StatusUnauthorized {
			t.Errorf("%s: %d %s", name, got.status, got.raw)
		}
	}
	gone := start(t, func(c *Config) {
		c.Policies = parsePolicies(t, "policies:\n  other:\n    buckets: [demo]\n    key_prefixes: [\"*\"]\n    content_types: [\"*/*\"]\n"+
			"    max_size: 1MiB\n    max_expiry: 1h\n    callback_urls: [\"http://127.0.0.1:1/\"]\n")
	})
	if got := gone.call(t, http.MethodGet, "/v1/policy", gone.photos, ""); got.status != http.StatusForbidden || got.text("rule") != "policy" {
		t.Errorf("a policy that is gone: %d %s", got.status, got.raw)
	}
}

// TestModule: pages of any origin may import the module, without an API key.
func TestModule(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *Config) { c.Module, c.Types = page.Module(false), page.Module(true) })
	for path, kind := range map[string]string{
		"/upcall-uploader.js": "text/javascript; charset=utf-8", "/upcall-uploader.d.ts": "text/plain; charset=utf-8",
	} {
		r := s.request(t, http.MethodGet, path, "", "")
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		header := response.Header
		if response.StatusCode != http.StatusOK || header.Get("Content-Type") != kind || header.Get("Access-Control-Allow-Origin") != "*" ||
			header.Get("X-Content-Type-Options") != "nosniff" || response.ContentLength < 1000 {
			t.Errorf("%s: %s %v", path, response.Status, header)
		}
		r = s.request(t, http.MethodGet, path, "", "")
		r.Header.Set("If-None-Match", header.Get("ETag"))
		again, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		again.Body.Close()
		if again.StatusCode != http.StatusNotModified {
			t.Errorf("%s again: %s", path, again.Status)
		}
	}
}
