package loadgen_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"syscall"
	"testing"

	"upcall/internal/loadgen"
)

// TestClient checks that each request arrives whole and gets its own answer, whether the
// requests share a connection or not.
func TestClient(t *testing.T) {
	t.Parallel()
	generator, err := loadgen.New("https://key.example/")
	if err != nil {
		t.Fatal(err)
	}
	for _, closing := range []bool{false, true} {
		t.Run(fmt.Sprint("closing ", closing), func(t *testing.T) {
			t.Parallel()
			connections := make(chan string, 3)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				connections <- r.RemoteAddr
				body, err := io.ReadAll(r.Body)
				if err != nil || r.Method != http.MethodPost || r.URL.Path != loadgen.Path || r.Header.Get("Authorization") == "" {
					t.Errorf("%s %s, %v: %s", r.Method, r.URL, r.Header, err)
				}
				if strings.Contains(string(body), "00000001.jpg") {
					w.WriteHeader(http.StatusServiceUnavailable)
				}
				io.WriteString(w, r.Header.Get("X-Oss-Request-Id"))
			}))
			defer server.Close()
			client := &loadgen.Client{Addr: strings.TrimPrefix(server.URL, "http://"), Closing: closing}
			defer client.Close()
			messages, err := generator.Wire(3, closing)
			if err != nil {
				t.Fatal(err)
			}
			for i, want := range []int{200, 503, 200} {
				status, body, err := client.Send(messages[i])
				if err != nil || status != want || !strings.HasSuffix(string(body), fmt.Sprintf("%016X", i)) {
					t.Errorf("callback %d: %d %q %v, want %d and its request id", i, status, body, err, want)
				}
			}
			close(connections)
			seen := make(map[string]bool)
			for address := range connections {
				seen[address] = true
			}
			if n := len(seen); closing && n != 3 || !closing && n != 1 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// TestClientRefused checks that a missing answer is an error without a status.
func TestClientRefused(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	addr := strings.TrimPrefix(server.URL, "http://")
	server.Close()
	if status, _, err := (&loadgen.Client{Addr: addr}).Send([]byte("x")); !errors.Is(err, syscall.ECONNREFUSED) || status != 0 {
		t.Errorf("a server that is gone: %d, %v", status, err)
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "# TYPE depth gauge\ndepth 2\nother_depth 3\nsize 1.5e+07\n")
	}))
	defer server.Close()
	admin := strings.TrimPrefix(server.URL, "http://")
	got, err := loadgen.Metrics(t.Context(), admin, "size", "depth")
	if err != nil || !slices.Equal(got, []float64{1.5e7, 2}) {
		t.Errorf("got %v, %v", got, err)
	}
	if got, err := loadgen.Metrics(t.Context(), admin, "epth"); err == nil || !strings.Contains(err.Error(), "there is no epth") {
		t.Errorf("a missing metric: %v, %v", got, err)
	}
}
