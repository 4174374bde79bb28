package cli

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestCheckListener(t *testing.T) {
	t.Parallel()
	for _, good := range []string{":8080", "127.0.0.1:0", "[::1]:8080", "db.internal:65535", ":http"} {
		if err := CheckListener("--listen", good, "8080"); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{"", "8080", "127.0.0.1", "127.0.0.1:", ":65536", ":-1", "http://127.0.0.1:8080", ":no-such-service"} {
		err := CheckListener("--listen", bad, "8080")
		if err == nil || !strings.Contains(err.Error(), "--listen: ") ||
			!strings.HasSuffix(err.Error(), "write 127.0.0.1:8080, or :8080 for all addresses") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestCheckHealth(t *testing.T) {
	t.Parallel()
	stall := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/good", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/slow", func(http.ResponseWriter, *http.Request) { <-stall })
	server := httptest.NewServer(mux)
	defer server.Close()
	defer close(stall)
	address := server.Listener.Addr().String()
	for path, want := range map[string]string{"/good": "", "/bad": "/bad answered 404", "/slow": "deadline exceeded"} {
		err := CheckHealth(t.Context(), address, path, time.Second)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", path, err, want)
		}
	}
	if err := CheckHealth(t.Context(), address, "/good", 0); err != nil {
		t.Errorf("0s is no timeout: %v", err)
	}
	if err := CheckHealth(t.Context(), "a b", "/good", time.Second); !errors.Is(err, ErrUsage) {
		t.Errorf("no address: %v", err)
	}
}
