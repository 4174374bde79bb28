package buildinfo

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestString(t *testing.T) {
	t.Parallel()
	b := Build{"v1.2.3", strings.Repeat("ab", 20) + "+dirty", "2026-11-28T04:00:00Z", "go1.26.0"}
	if got := b.String(); !strings.HasPrefix(got, "v1.2.3 (commit abababababab+dirty of 2026-11-28T04:00:00Z, go1.26.0 ") {
		t.Errorf("%q", got)
	}
	if got := Current(); got.Version == "" || got.Commit == "" || got.Date == "" || !strings.HasPrefix(got.Go, "go") {
		t.Errorf("%+v", got)
	}
}

// TestLinked builds a program as a release does, without Git, and asks it.
func TestLinked(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "ossemu")
	const at = "-X upcall/internal/buildinfo."
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", program,
		"-ldflags="+at+"version=v9.8.7 "+at+"commit=0123456789abcdef0123 "+at+"date=2026-01-02T03:04:05Z", "upcall/cmd/ossemu")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	text, err := exec.CommandContext(t.Context(), program, "--version").Output()
	want := regexp.MustCompile(`^ossemu v9\.8\.7 \(commit 0123456789ab of 2026-01-02T03:04:05Z, go\S+ \w+/\w+\)\n$`)
	if err != nil || !want.Match(text) {
		t.Errorf("%q, %v", text, err)
	}
}
