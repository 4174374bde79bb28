package issueapi

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// TestKeySpellings sends keys that programs read differently, and such that only look so, with
// a policy that allows some keys and with one that allows any.
func TestKeySpellings(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	body := func(field, text string) string {
		return string(marshal(t, map[string]any{field: text, "content_type": "image/jpeg", "size": 300000,
			"vars": map[string]string{}}))
	}
	for _, path := range []string{"/v1/uploads", "/v1/uploads/multipart"} {
		for _, tt := range []struct {
			key    string
			status int
		}{
			{"a/../b", 403}, {"a/./b", 403}, {"..", 403}, {".", 403}, {"a/%2e%2e/b", 403}, {"a/%2E%2e/b", 403}, {"a/.%2e/b", 403},
			{"%2e", 403}, {"a/%252e%252e/b", 403}, {"a%2f..%2fb", 403}, {"a/..;/b", 403}, {"a/... /b", 403}, {"a//b", 403},
			{"/a", 403}, {"%2fa", 403}, {"a/", 403}, {`\a`, 403}, {`C:\fakepath\a.png`, 403}, {"a%5cb", 403}, {"a\tb", 403},
			{"a\nb", 403}, {"a\x7fb", 403}, {"a\x00b", 403}, {"a%00b", 403}, {"a%0d%0ab", 403}, {"a\u202eb", 403},
			{"a/%c0%ae%c0%ae/b", 403}, {strings.Repeat("k", 1024), 422}, {strings.Repeat("é", 512), 422},
			{strings.Repeat("k", 1023), 201}, {"50%.txt", 201}, {"a%2Fb", 201}, {"100%25 a+b?c#d&e=f", 201}, {"..b/a..", 201},
			{"报告，（终）．ｐｄｆ", 201}, {"a b/'\"<>.txt", 201}, {"r%e9sum%e9", 201},
		} {
			got := s.call(t, http.MethodPost, path, s.films, body("key", tt.key))
			if got.status != tt.status || got.status == 403 && got.broken(t)[0] != (brokenRule{"key", "key"}) ||
				got.status == 422 && got.broken(t)[0] != (brokenRule{"oss", "key"}) {
				t.Errorf("%s %q: %d %s", path, tt.key, got.status, got.raw)
			}
			if got.status == 201 && path == "/v1/uploads" {
				u, err := url.Parse(got.text("url"))
				if err != nil || u.Path != "/demo/"+tt.key || got.text("key") != tt.key {
					t.Errorf("%q: %s for the key %s (%v)", tt.key, got.text("url"), got.text("key"), err)
				}
			}
		}
		// Invalid UTF-8, and what JSON cannot hold.
		for _, key := range []string{"a\xffb", "\xc0\xae"} {
			raw := `{"key":"` + key + `","content_type":"image/jpeg","size":1}`
			if got := s.call(t, http.MethodPost, path, s.films, raw); got.status != http.StatusBadRequest {
				t.Errorf("%s %q: %d %s", path, key, got.status, got.raw)
			}
		}
	}
	// The names of files make safe keys, whatever they are.
	for _, tt := range []struct{ name, end string }{
		{"/lead.png", "-lead.png"}, {"../x.png", "-x.png"}, {`C:\fakepath\a.png`, "-a.png"}, {"..", "-file"}, {"", ""},
		{"%2e%2e", "-_2e_2e"}, {"a%2Fb", "-a_2Fb"}, {"a\nb\x00.png", "-a_b_.png"}, {"ｆｕｌｌ．ｐｎｇ", "-ｆｕｌｌ_ｐｎｇ"},
		{"\u202egpj.exe", "-_gpj.exe"}, {strings.Repeat("k", 2000) + ".png", "k.png"},
	} {
		raw := strings.Replace(body("filename", tt.name), `"vars":{}`, `"vars":{"x:uid":"42"}`, 1)
		got := s.call(t, http.MethodPost, "/v1/uploads", s.photos, raw)
		if tt.name == "" {
			if got.status != 403 || got.broken(t)[0] != (brokenRule{"key_templates", "filename"}) {
				t.Errorf("no name: %d %s", got.status, got.raw)
			}
			continue
		}
		if key := got.text("key"); got.status != 201 || !strings.HasPrefix(key, "made/web/") || !strings.HasSuffix(key, tt.end) ||
			strings.Count(key, "/") != 3 {
			t.Errorf("%q: %d %s", tt.name, got.status, got.raw)
		}
	}
}
