package httpserver

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestAdmin(t *testing.T) {
	t.Parallel()
	var unready error
	note := ""
	registry := NewRegistry()
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "test_depth"}, func() float64 { return 3 }))
	admin := Admin(func(context.Context) (string, error) { return note, unready }, registry)
	admin.HandleFunc("GET /v1/things/{id}", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(r.PathValue("id"))) })
	ask := func(method, path string) (int, string) {
		answer := httptest.NewRecorder()
		admin.ServeHTTP(answer, httptest.NewRequest(method, path, nil))
		return answer.Code, answer.Body.String()
	}
	for _, tt := range []struct {
		method, path string
		unready      error
		status       int
		body         string
	}{
		{"GET", "/livez", nil, 200, "ok\n"},
		{"GET", "/livez", errors.New("no schema"), 200, "ok\n"},
		{"GET", "/readyz", nil, 200, "ok\n"},
		{"GET", "/readyz", errors.New("no schema"), 503, "not ready: no schema\n"},
		{"GET", "/v1/things/seven", nil, 200, "seven"},
		{"POST", "/livez", nil, 404, "404 page not found\n"},
		{"GET", "/", nil, 404, "404 page not found\n"},
	} {
		unready = tt.unready
		if status, body := ask(tt.method, tt.path); status != tt.status || body != tt.body {
			t.Errorf("%s %s: got %d %q, want %d %q", tt.method, tt.path, status, body, tt.status, tt.body)
		}
	}
	unready, note = nil, "two months"
	if status, body := ask("GET", "/readyz"); status != 200 || body != "ok\ntwo months\n" {
		t.Errorf("ready, with a note: %d %q", status, body)
	}
	status, body := ask("GET", "/metrics")
	for _, want := range []string{"\ntest_depth 3\n", "\ngo_goroutines ", "\nprocess_open_fds "} {
		if !strings.Contains(body, want) {
			t.Errorf("the metrics lack %q (status %d)", want, status)
		}
	}
}
