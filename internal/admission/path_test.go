package admission

import (
	"encoding/json"
	"net/url"
	"testing"

	"upcall/internal/callbackspec"
	"upcall/internal/ossemu"
)

// TestPublicURL checks that the signature covers the path that OSS requested.
func TestPublicURL(t *testing.T) {
	t.Parallel()
	const public = "/upcall%20in/oss?tenant=7"
	policy := newPolicy(t, Config{
		PublicURL: "https://hooks.example.com/upcall%20in/oss", CallbackPaths: []string{path}, TokenPolicy: TokenOff,
	})
	r := request(form, "bucket=demo")
	r.Authorization, r.Target = ossemu.SignCallback(public, r.Body), path+"?tenant=7"
	if _, refusal := policy.Admit(t.Context(), r, noon); refusal != nil {
		t.Errorf("%+v", refusal)
	}
	if r.Target = path; policy.Signed(r).Target != "/upcall%20in/oss" {
		t.Errorf("signed target without a query: %s", policy.Signed(r).Target)
	}
}

func TestCallbackPaths(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{ // which of the patterns it matches
		"/oss/callback":             "/oss/callback",
		"/oss/callback/":            "",
		"/":                         "",
		"/callback/oss/s1/k1":       "/callback/oss/:session/:key",
		"/callback/oss/s1":          "",
		"/callback/oss/s1/":         "",
		"/callback/oss//k1":         "",
		"/callback/oss/s1/k1/":      "",
		"/callback/oss/s1/k1/x":     "",
		"/callback/oss/:session/ü&": "/callback/oss/:session/:key",
		"/hooks/":                   "/hooks/*",
		"/hooks/a":                  "/hooks/*",
		"/hooks/a/b//c/":            "/hooks/*",
		"/hooks":                    "",
		"/hooksx":                   "",
		"/v1/t1/a/b":                "/v1/:tenant/*rest",
		"/v1/t1/":                   "/v1/:tenant/*rest",
		"/v1/t1":                    "",
	} {
		for _, pattern := range []string{"/oss/callback", "/callback/oss/:session/:key", "/hooks/*", "/v1/:tenant/*rest"} {
			policy := newPolicy(t, Config{CallbackPaths: []string{"/elsewhere", pattern}})
			r := request(form, "bucket=demo")
			r.Path = path
			if refusal := policy.CheckHead(r); (refusal == nil) != (pattern == want) || refusal != nil && refusal.Reason != ReasonPath {
				t.Errorf("%s at %s: %+v", path, pattern, refusal)
			}
			if !matchPath(pattern, pattern) {
				t.Errorf("%s is not one of its own paths", pattern)
			}
		}
	}
	for target, want := range map[string]bool{
		"/callback/oss/s1/a%2Fb?id=1": true, "/callback/%6Fss/s1/k1": true, "/callback/oss/s1/a%2Fb/c": false,
	} {
		r := request(form, "bucket=demo")
		r.Target = target
		r.Path, _ = url.PathUnescape(target)
		if refusal := newPolicy(t, Config{CallbackPaths: []string{"/callback/oss/:session/:key"}}).checkPath(r); (refusal == nil) != want {
			t.Errorf("%s: %+v", target, refusal)
		}
	}
	r := request(form, "bucket=demo")
	if r.Path = "/any/thing"; newPolicy(t, Config{CallbackPaths: []string{"/*"}}).CheckHead(r) != nil {
		t.Error("/* does not match everything")
	}
}

// TestQuery: the query of the callback URL is recorded where it is as trustworthy as the body.
func TestQuery(t *testing.T) {
	t.Parallel()
	const target = path + "?id=1&index=%2Fx+y&bucket=other&size=9&upcall_token=t&uid=7"
	const fields = "bucket=demo&object=a.txt&uid=42"
	_, token := mintFor(t, callbackspec.Parameter{
		Body: "uid=42&upcall_token=${x:upcall_token}", URLs: []string{"https://example.com" + target}})
	// This one was issued by the version before. Its key is keyring's.
	const token1 = "k1.AQIDBAUGBwgJCgsMDQ4PEABrAudQCg995SWPS68reI2jyY2gXVZqftDwkQxiApJgr9OFzEWUQurJW_lMmsWSevlqka3B"
	for _, tt := range []struct {
		name, body string
		policy     TokenPolicy
		want       string
	}{
		{"tokens off", fields, TokenOff, `{"bucket":"other","id":"1","index":"/x y","size":"9","uid":"42"}`},
		{"no token", fields, TokenOptional, `{"bucket":"other","id":"1","index":"/x y","size":"9","uid":"42"}`},
		{"a token that covers the query", fields + "&upcall_token=" + token, TokenRequired,
			`{"bucket":"other","id":"1","index":"/x y","size":"9","uid":"42"}`},
		{"a token that does not", fields + "&upcall_token=" + token1, TokenRequired, `{"uid":"42"}`},
	} {
		r := request(form, tt.body)
		r.Target, r.Authorization = target, ossemu.SignCallback(target, r.Body)
		e, refusal := newPolicy(t, Config{TokenPolicy: tt.policy}).Admit(t.Context(), r, noon)
		if refusal != nil {
			t.Errorf("%s: %+v", tt.name, refusal)
			continue
		}
		if vars, err := json.Marshal(e.Callback.Vars); err != nil || string(vars) != tt.want {
			t.Errorf("%s: %s, want %s (%v)", tt.name, vars, tt.want, err)
		}
		if e.Callback.Bucket != "demo" || e.Callback.Size != nil {
			t.Errorf("%s: the query became a system field: %+v", tt.name, e.Callback)
		}
	}
}
