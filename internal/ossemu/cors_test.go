package ossemu

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

func preflight(t *testing.T, base, origin, method, headers string) reply {
	t.Helper()
	return preflightOf(t, base+"/demo/k", origin, method, headers)
}

func preflightOf(t *testing.T, url, origin, method, headers string) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "OPTIONS", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"Origin": origin, "Access-Control-Request-Method": method,
		"Access-Control-Request-Headers": headers} {
		if value != "" {
			r.Header.Set(name, value)
		}
	}
	return send(t, r)
}

// corsHeaders are the names of the CORS headers of an answer.
func corsHeaders(h http.Header) []string {
	var names []string
	for name := range h {
		if rest, ok := strings.CutPrefix(name, "Access-Control-"); ok {
			names = append(names, rest)
		}
	}
	slices.Sort(names)
	return names
}

func TestCORS(t *testing.T) {
	t.Parallel()
	_, open := start(t)
	strict := CORSRule{Origins: []string{"https://app.example", "https://*.dev.example"}, Methods: []string{"PUT"},
		Headers: []string{"Content-Type", "x-oss-callback*"}, Expose: []string{"ETag"}, MaxAge: 10 * time.Minute}
	_, closed := start(t, func(c *Config) { c.CORS = &strict })
	_, bare := start(t, func(c *Config) {
		c.CORS = &CORSRule{Origins: []string{"https://app.example"}, Methods: []string{"PUT"}, Headers: []string{"*"}}
	})
	_, none := start(t, func(c *Config) { c.CORS = &CORSRule{} })
	for name, tc := range map[string]struct {
		base, origin, method, headers string
		allowed                       bool
		maxAge                        string
	}{
		"any page":           {open, "https://any.example", "PUT", "content-type,x-oss-callback", true, "60"},
		"any page, PATCH":    {open, "https://any.example", "PATCH", "", false, ""},
		"listed":             {closed, "https://app.example", "PUT", "content-type, X-OSS-Callback,x-oss-callback-var", true, "600"},
		"listed by star":     {closed, "https://a.dev.example", "PUT", "", true, "600"},
		"star needs a point": {closed, "https://dev.example", "PUT", "", false, ""},
		"other origin":       {closed, "https://evil.example", "PUT", "", false, ""},
		"other scheme":       {closed, "http://app.example", "PUT", "", false, ""},
		"other method":       {closed, "https://app.example", "GET", "", false, ""},
		"other header":       {closed, "https://app.example", "PUT", "content-type,x-oss-user-agent", false, ""},
		"no max age":         {bare, "https://app.example", "PUT", "a,b", true, ""},
	} {
		got := preflight(t, tc.base, tc.origin, tc.method, tc.headers)
		if !tc.allowed {
			e := wantError(t, got, 403, "AccessForbidden")
			if !strings.HasPrefix(e.Message, "CORSResponse: This CORS request is not allowed.") || len(corsHeaders(got.header)) > 0 {
				t.Errorf("%s: %+v", name, got)
			}
			continue
		}
		if got.status != 200 || got.header.Get("Access-Control-Allow-Origin") != tc.origin ||
			got.header.Get("Access-Control-Allow-Headers") != tc.headers ||
			!strings.Contains(got.header.Get("Access-Control-Allow-Methods"), tc.method) || got.header.Get("Access-Control-Max-Age") != tc.maxAge {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if e := wantError(t, preflight(t, none, "https://app.example", "PUT", ""), 403,
		"AccessForbidden"); e.Message != "CORSResponse: CORS is not enabled for this bucket." {
		t.Errorf("no rule: %s", e.Message)
	}
	wantError(t, preflight(t, open, "", "", ""), 400, "InvalidArgument")
	for _, query := range []string{"?uploads", "?uploadId=x&partNumber=1", "?uploadId=x", "?acl"} {
		if got := preflightOf(t, open+"/demo/k"+query, "https://any.example", "PUT", ""); got.status != 200 {
			t.Errorf("%s: %d %s", query, got.status, got.body)
		}
	}

	put := func(base, origin string) http.Header {
		w := newWire("PUT", base, "k")
		w.header.Set("Origin", origin)
		got := send(t, w.presigned(t))
		if got.status != 200 {
			t.Errorf("CORS is for browsers: %d %s", got.status, got.body)
		}
		return got.header
	}
	exposed := put(open, "https://any.example").Get("Access-Control-Expose-Headers")
	for _, name := range []string{"ETag", "x-oss-request-id", "x-oss-hash-crc64ecma", "x-oss-ec", "Content-MD5"} {
		if !strings.Contains(exposed, name) {
			t.Errorf("%s is not exposed", name)
		}
	}
	if got := put(closed, "https://app.example"); got.Get("Access-Control-Expose-Headers") != "ETag" || got.Get("Vary") != "Origin" {
		t.Errorf("rule's own: %v", got)
	}
	for what, h := range map[string]http.Header{"foreign origin": put(closed, "https://evil.example"),
		"no rule": put(none, "https://app.example")} {
		if len(corsHeaders(h)) > 0 {
			t.Errorf("%s: a script may read the answer: %v", what, h)
		}
	}
}

func TestCORSMistakes(t *testing.T) {
	t.Parallel()
	rule := CORSRule{Origins: []string{"app.example", "https://app.example/", "https://*.*"}, Methods: []string{"PATCH"},
		Headers: []string{"a*b*"}, Expose: []string{"*"}, MaxAge: -1}
	_, err := New(Config{AccessKeyID: "a", AccessKeySecret: "b", Region: testRegion, Buckets: []string{testBucket}, CORS: &rule})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{`"app.example"`, `"https://app.example/"`, `"https://*.*"`, `"PATCH"`, `"a*b*"`, `"*"`, "negative"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not reported in:\n%s", want, err)
		}
	}
}
