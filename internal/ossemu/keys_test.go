package ossemu

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestKeySpellings: a key is decoded once and taken as it is, and none is a path on the disk.
func TestKeySpellings(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, base := start(t, func(c *Config) { c.DataDir = filepath.Join(dir, "data") })
	for _, key := range []string{
		"a/../b", "../../../b", "a/./b", "..", ".", "a/..", "a/%2e%2e/b", "%2e", "a/%2E%2e/b", "%252e%252e/a", "a%2f..%2fb", "a//b", "a/",
		`a\..\b`, "a\tb", "a\nb", "a\x7fb", "a\x00b", "%00", "a+b c", "?a#b&c=d", "a%", "键/．．", strings.Repeat("k", 1023),
	} {
		if got := putHeaders(t, base, key); got.status != 200 {
			t.Errorf("%q: %d %s", key, got.status, got.body)
			continue
		}
		if o, err := s.store.get(testBucket, key); err != nil || o.Key != key {
			t.Errorf("%q: %v, %v", key, o, err)
		}
	}
	for key, ec := range map[string]string{
		"/a": "0016-00000005", "//a": "0016-00000005", `\a`: "0016-00000005", "a\xffb": "0016-00000004", "\xc0\xae": "0016-00000004",
		strings.Repeat("k", 1024): "0016-00000003",
	} {
		if e := wantError(t, putHeaders(t, base, key), 400, "InvalidObjectName"); e.EC != ec {
			t.Errorf("%.20q: EC %s", key, e.EC)
		}
	}
	outside, err := os.ReadDir(dir)
	if err != nil || len(outside) != 1 {
		t.Errorf("beside the data: %v, %v", outside, err)
	}
}
