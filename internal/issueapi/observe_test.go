package issueapi

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"upcall/internal/httpserver"
	"upcall/internal/testing/servetest"
)

// panicking is an Issuer that panics.
type panicking struct{ cannedIssuer }

func TestPanic(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *Config) { c.Issuer = panicking{} })
	for range 2 { // the process survives
		got := s.call(t, http.MethodPost, "/v1/uploads", s.photos, goodBody)
		if got.status != http.StatusServiceUnavailable || strings.Contains(got.raw, "secret") || strings.Contains(got.raw, "goroutine") {
			t.Errorf("%d %s", got.status, got.raw)
		}
	}
	if log := s.log.String(); !strings.Contains(log, "a secret state") || !strings.Contains(log, "goroutine") {
		t.Errorf("the log does not show the panic:\n%s", log)
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.call(t, http.MethodPost, "/v1/uploads", s.photos, goodBody)
	s.call(t, http.MethodPost, "/v1/uploads", s.photos, "{}")
	s.call(t, http.MethodGet, "/some/path", s.photos, "")
	_, metrics := servetest.Get(t, s.Admin+"/metrics")
	for _, want := range []string{
		`upcall_issuer_requests_total{outcome="ok",route="POST /v1/uploads"} 1`,
		`upcall_issuer_requests_total{outcome="policy",route="POST /v1/uploads"} 1`,
		`upcall_issuer_requests_total{outcome="not-found",route="none"} 1`,
		"upcall_issuer_batch_rows_count 1",
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
}

// TestLog checks that each request gets one log line, without a secret.
func TestLog(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *Config) { c.Proxies = httpserver.Proxies{netip.MustParsePrefix("127.0.0.0/8")} })
	issued := s.call(t, http.MethodPost, "/v1/uploads", s.photos, goodBody)
	s.call(t, http.MethodPost, "/v1/uploads", s.photos, with("cat.jpg", "../a"))
	s.call(t, http.MethodGet, "/v1/uploads/"+issued.text("upload_id"), s.photos, "")
	s.call(t, http.MethodGet, "/v1/uploads/x", forged(s.photos), "")
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	log := s.log.String()
	var lines []string
	for line := range strings.Lines(log) {
		if strings.Contains(line, `"msg":"request"`) {
			lines = append(lines, line)
		}
	}
	if len(lines) != 4 {
		t.Fatalf("%d lines for 4 requests:\n%s", len(lines), log)
	}
	id := `"upload_id":"` + issued.text("upload_id") + `"`
	for i, want := range [][]string{
		{`"level":"INFO"`, `"remote":"127.0.0.1","peer":"127.0.0.1:`, `"route":"POST /v1/uploads"`, `"status":201`, `"outcome":"ok"`, `"api_key":"web"`, id,
			`"bucket":"demo"`, `"object_key":"photos/web/cat.jpg"`},
		{`"level":"WARN"`, `"status":403`, `"outcome":"policy"`, `"api_key":"web"`, `"rules":"key"`},
		{`"route":"GET /v1/uploads/:id"`, `"status":200`, id},
		{`"status":401`, `"outcome":"unauthenticated"`, `"rules":"api_key"`},
	} {
		for _, field := range want {
			if !strings.Contains(lines[i], field) {
				t.Errorf("line %d lacks %s: %s", i, field, lines[i])
			}
		}
	}
	for _, secret := range []string{s.photos[len("upk_web_"):], "x-oss-signature", "upcall_token"} {
		if strings.Contains(log, secret) {
			t.Errorf("the log holds a secret:\n%s", log)
		}
	}
	if strings.Contains(lines[3], `"api_key":`) {
		t.Errorf("the log names a key that was not verified: %s", lines[3])
	}
}
