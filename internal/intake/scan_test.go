package intake

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"upcall/internal/admission"
	"upcall/internal/testing/logtest"
	"upcall/internal/testing/servetest"
	"upcall/internal/verify"
)

// TestScannersAtDebug: what scanners of the internet ask for is logged at debug, so that it hides nothing. What claims to
// come from OSS is a warning whatever its path: that is a mistake in a setting.
func TestScannersAtDebug(t *testing.T) {
	t.Parallel()
	var log logtest.Buffer
	server, err := New(Config{
		Verifier: new(verify.Verifier), Recorder: instant{}, Metrics: NewMetrics(), Admission: admission.Config{TokenPolicy: admission.TokenOff},
		Logger: slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	running := servetest.Start(t, func(ctx context.Context, public, _ net.Listener) error { return server.Serve(ctx, public) })
	for _, tt := range []struct {
		method, path, keyURL string
		status               int
	}{
		{"GET", "/wp-login.php", "", http.StatusNotFound},
		{"POST", "/.env", "", http.StatusNotFound},
		{"GET", "/oss/callback", "", http.StatusMethodNotAllowed},
		{"POST", "/oss/callbacks", "aHR0cHM6Ly9nb3NzcHVibGljLmFsaWNkbi5jb20vYS5wZW0=", http.StatusNotFound},
		{"POST", "/oss/callback", "", http.StatusForbidden},
	} {
		request, err := http.NewRequestWithContext(t.Context(), tt.method, running.Public+tt.path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		if tt.keyURL != "" {
			request.Header.Set("X-Oss-Pub-Key-Url", tt.keyURL)
		}
		if status, body := servetest.Do(t, request); status != tt.status {
			t.Errorf("%s %s: %d %s", tt.method, tt.path, status, body)
		}
	}
	if err := running.Stop(); err != nil {
		t.Fatal(err)
	}
	var levels []string
	for line := range strings.Lines(log.String()) {
		if _, rest, ok := strings.Cut(line, `"level":"`); ok && strings.Contains(line, `"msg":"callback"`) {
			level, _, _ := strings.Cut(rest, `"`)
			levels = append(levels, level)
		}
	}
	if got, want := strings.Join(levels, " "), "DEBUG DEBUG DEBUG WARN WARN"; got != want {
		t.Errorf("logged at %s, want %s:\n%s", got, want, log.String())
	}
}
