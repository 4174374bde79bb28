package httpserver

import (
	"net/http"
	"strings"
	"testing"
)

// TestHeaders: more than the limit is refused before a handler sees it.
func TestHeaders(t *testing.T) {
	t.Parallel()
	s := site(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	go s.Server.Serve(s.Listener)
	defer s.Server.Close()
	for size, want := range map[int]int{MaxHeaderBytes / 2: http.StatusOK, MaxHeaderBytes + 20<<10: http.StatusRequestHeaderFieldsTooLarge} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Listener.Addr().String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X", strings.Repeat("a", size))
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("%d bytes: %d, want %d", size, response.StatusCode, want)
		}
	}
}
