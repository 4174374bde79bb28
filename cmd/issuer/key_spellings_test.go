package main

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"

	"upcall/internal/manifest"
)

// TestKeySpellings issues uploads for keys that programs read differently. With credentials of
// their own, users get what OSS takes, and the URL is for exactly that key.
func TestKeySpellings(t *testing.T) {
	t.Parallel()
	env, _ := emulated(t)
	path := func(address string) string {
		t.Helper()
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		return u.Path
	}
	create := []string{"multipart", "create", "--bucket", "demo", "--parts", "2"}
	for _, key := range []string{
		"a/../b", "a/./b", "..", ".", "a/..", "a/%2e%2e/b", "%2e", "a/%2E%2e/b", "%252e%252e/a", "a%2f..%2fb", "a//b", "a/", `a\b`, `..\a`,
		"a\tb", "a\nb", "a\x7fb", "%00", "%0d%0a", "a+b c", "?a#b&c=d", "a%", "键/．．", strings.Repeat("k", 1023),
	} {
		if u := executeJSON(t, env, slices.Concat(good, []string{"--key", key})...); path(u.URL) != "/demo/"+key || u.Key != key {
			t.Errorf("put %q: %s for %q", key, u.URL, u.Key)
		}
		stdout, stderr, status := execute(t, env, slices.Concat(create, []string{"--key", key})...)
		var m manifest.Multipart
		if err := json.Unmarshal([]byte(stdout), &m); status != 0 || err != nil {
			t.Errorf("multipart %q: status %d, %v: %s", key, status, err, stderr)
			continue
		}
		for _, r := range []manifest.PresignedRequest{m.Parts[0].PresignedRequest, m.Complete, m.Abort, m.ListParts, *m.Head} {
			if path(r.URL) != "/demo/"+key || m.Key != key {
				t.Errorf("multipart %q: %s for %q", key, r.URL, m.Key)
			}
		}
	}
	for _, tt := range []struct{ key, want string }{
		{"", "key: is empty"}, {"/a", `key: starts with '/'`}, {"//a", `key: starts with '/'`}, {`\a`, `key: starts with '\\'`},
		{"a\x00b", "key: holds a NUL"}, {"a\xffb", "key: is not UTF-8"}, {"\xc0\xae", "key: is not UTF-8"},
		{strings.Repeat("k", 1024), "key: has 1024 bytes"}, {strings.Repeat("é", 512), "key: has 1024 bytes"},
	} {
		for _, line := range [][]string{good, create} {
			stdout, stderr, status := execute(t, env, slices.Concat(line, []string{"--key=" + tt.key})...)
			if status != 2 || stdout != "" || !strings.Contains(stderr, tt.want) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("%.20q: status %d: %s%s", tt.key, status, stdout, stderr)
			}
		}
	}
}
