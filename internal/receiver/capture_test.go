package receiver

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"upcall/internal/admission"
	"upcall/internal/dbtest"
	"upcall/internal/fault"
	"upcall/internal/testing/servetest"
	"upcall/internal/testing/wait"
)

// TestCaptureRefused: a receiver captures what it refuses, shows a viewer the doctor's verdict, and goes on with what a former one
// has captured.
func TestCaptureRefused(t *testing.T) {
	t.Parallel()
	url, dir := dbtest.URL(t), filepath.Join(t.TempDir(), "captures")
	cfg := Config{DatabaseURL: url, CaptureDir: dir, Admission: admission.Config{TokenPolicy: admission.TokenOff}}
	key := viewerKey(t, url)
	for range 2 {
		s := start(t, cfg)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.Public+"/oss/callback", strings.NewReader("bucket=b&object=o"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if status, text := servetest.Do(t, r); status != http.StatusForbidden {
			t.Fatalf("%d %s", status, text)
		}
		wait.Until(t, "it is captured, and examined", func() bool {
			_, text := servetest.Do(t, request(t, s.Admin+"/v1/refusals/captured?reason=signature_missing", key))
			return strings.Contains(text, `"verdict":"refused"`) && !strings.Contains(text, `"verdict":null`)
		})
		wait.Until(t, "the row names its capture", func() bool {
			_, text := servetest.Do(t, request(t, s.Admin+"/v1/refusals?reason=signature_missing", key))
			return strings.Contains(text, `"captured":"20`)
		})
		if n := s.Metric(t, "upcall_captures_total"); n != 1 {
			t.Errorf("counted %v", n)
		}
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 2 {
		t.Errorf("%v, %v", files, err)
	}
}

// TestBadCaptureDirectory is a mistake in the settings.
func TestBadCaptureDirectory(t *testing.T) {
	t.Parallel()
	err := Config{CaptureDir: "/dev/null", Admission: admission.Config{TokenPolicy: admission.TokenOff}}.Check()
	var of fault.Fault
	if !errors.As(err, &of) || of.Field != "UPCALL_CAPTURE_REFUSED" {
		t.Errorf("%v", err)
	}
}
