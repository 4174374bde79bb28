package ossemu

import (
	"net/http"
	"testing"
)

func TestVirtualHostStyle(t *testing.T) {
	t.Parallel()
	s, _ := start(t, func(c *Config) { c.PublicURL = "http://oss.example:9000" })
	for host, want := range map[string]string{
		"demo.localhost:9000": "demo", "nowhere.localhost": "nowhere", "demo.oss.example:9000": "demo",
		"demo.oss-cn-hangzhou.aliyuncs.com": "demo", "demo.anything.test": "demo", "DEMO.localhost": "demo",
		"a.b.oss-cn-hangzhou.aliyuncs.com": "a.b", "demo.b.localhost": "demo.b", "oss-demo.oss-cn-hangzhou.aliyuncs.com": "oss-demo",
		"oss-cn-hangzhou.aliyuncs.com": "", "oss-cn-hangzhou-internal.aliyuncs.com:80": "",
		"oss.example:9000": "", "localhost:9000": "", "127.0.0.1:9000": "", "[::1]:9000": "", "ossemu": "", "nowhere.anything.test": "",
	} {
		if got := s.hostBucket(host); got != want {
			t.Errorf("%s: bucket %q, want %q", host, got, want)
		}
	}
}

// TestOSSHosts: under OSS's own names a request is answered as OSS answers it there.
func TestOSSHosts(t *testing.T) {
	t.Parallel()
	_, base := start(t)
	for host, want := range map[string]struct {
		status int
		code   string
	}{
		"oss-cn-hangzhou.aliyuncs.com":          {403, "SecondLevelDomainForbidden"},
		"oss-cn-hangzhou-internal.aliyuncs.com": {403, "SecondLevelDomainForbidden"},
		"b.demo.oss-cn-hangzhou.aliyuncs.com":   {400, "InvalidBucketName"},
		"demo.oss-cn-hangzhou.aliyuncs.com":     {403, "SignatureDoesNotMatch"}, // the path names the bucket again
	} {
		r := newWire("PUT", base, "k").presigned(t)
		r.Host = host
		wantError(t, send(t, r), want.status, want.code)
	}
	r, err := http.NewRequestWithContext(t.Context(), "GET", base+"/_ossemu/health", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "oss-cn-hangzhou.aliyuncs.com"
	if got := send(t, r); got.status != 200 {
		t.Errorf("health: %d %s", got.status, got.body)
	}
}
