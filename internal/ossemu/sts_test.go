package ossemu

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

type temporaryCredentials struct{ AccessKeyId, AccessKeySecret, SecurityToken, Expiration string }

func assumeRole(t *testing.T, base, query, id, secret string) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "POST", base+"/_ossemu/sts"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	if id != "" {
		r.SetBasicAuth(id, secret)
	}
	return send(t, r)
}

func TestTemporaryCredentials(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	_, base := start(t, func(c *Config) { c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) } })
	got := assumeRole(t, base, "?duration=90s", testKeyID, testSecret)
	var c, other temporaryCredentials
	if err := json.Unmarshal([]byte(got.body), &c); err != nil {
		t.Fatalf("%d %s: %v", got.status, got.body, err)
	}
	end, err := time.Parse(time.RFC3339, c.Expiration)
	if left := time.Until(end); err != nil || left < 80*time.Second || left > 90*time.Second || !strings.HasPrefix(c.AccessKeyId, "STS.") {
		t.Errorf("%+v, %v", c, err)
	}
	if err := json.Unmarshal([]byte(assumeRole(t, base, "", testKeyID, testSecret).body), &other); err != nil {
		t.Fatal(err)
	}
	put := func(id, secret, token string, inHeader bool) reply {
		w := newWire("PUT", base, "k")
		w.keyID, w.secret, w.at = id, secret, time.Now().Add(time.Duration(ahead.Load())).UTC()
		if inHeader {
			w.header.Set("x-oss-security-token", token)
			return send(t, w.headerSigned(t))
		}
		if token != "" {
			w.query.Set("x-oss-security-token", token)
		}
		return send(t, w.presigned(t))
	}
	for _, inHeader := range []bool{true, false} {
		if got := put(c.AccessKeyId, c.AccessKeySecret, c.SecurityToken, inHeader); got.status != 200 {
			t.Errorf("in a header %v: %d %s", inHeader, got.status, got.body)
		}
	}
	for name, tc := range map[string]struct{ id, secret, token, code, ec string }{
		"no token":        {c.AccessKeyId, c.AccessKeySecret, "", "InvalidAccessKeyId", "0002-00000003"},
		"token of others": {c.AccessKeyId, c.AccessKeySecret, other.SecurityToken, "InvalidSecurityToken", "0002-00000008"},
		"no such token":   {c.AccessKeyId, c.AccessKeySecret, "t", "InvalidSecurityToken", "0002-00000008"},
		"cut token":       {c.AccessKeyId, c.AccessKeySecret, c.SecurityToken[:len(c.SecurityToken)-2], "InvalidSecurityToken", "0002-00000008"},
		"secret":          {c.AccessKeyId, other.AccessKeySecret, c.SecurityToken, "SignatureDoesNotMatch", "0002-00000040"},
		"permanent":       {testKeyID, testSecret, c.SecurityToken, "InvalidSecurityToken", "0002-00000008"},
	} {
		if e := wantError(t, put(tc.id, tc.secret, tc.token, false), 403, tc.code); e.EC != tc.ec {
			t.Errorf("%s: EC %s, want %s", name, e.EC, tc.ec)
		}
	}
	ahead.Store(int64(2 * time.Minute))
	for _, inHeader := range []bool{true, false} {
		if e := wantError(t, put(c.AccessKeyId, c.AccessKeySecret, c.SecurityToken, inHeader), 403,
			"SecurityTokenExpired"); e.EC != "0002-00000007" {
			t.Errorf("EC %s", e.EC)
		}
	}
	if got := put(other.AccessKeyId, other.AccessKeySecret, other.SecurityToken, false); got.status != 200 {
		t.Errorf("the longer one: %d %s", got.status, got.body)
	}
}

func TestTemporaryCredentialsRefused(t *testing.T) {
	t.Parallel()
	_, base := start(t)
	for _, tc := range []struct {
		query, id, secret string
		status            int
	}{
		{"", "", "", 401}, {"", testKeyID, "x", 401}, {"", "x", testSecret, 401},
		{"?duration=0s", testKeyID, testSecret, 400}, {"?duration=soon", testKeyID, testSecret, 400},
		{"?duration=13h", testKeyID, testSecret, 400},
	} {
		if got := assumeRole(t, base, tc.query, tc.id, tc.secret); got.status != tc.status || strings.Contains(got.body, "SecurityToken") {
			t.Errorf("%+v: %d %s", tc, got.status, got.body)
		}
	}
}
