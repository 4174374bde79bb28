package toolchain

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestNothingIsMissing fails if a tool is missing though everything must be tested.
func TestNothingIsMissing(t *testing.T) {
	t.Parallel()
	if os.Getenv(VariableAll) != "1" {
		return
	}
	for _, tool := range Missing(t.Context()) {
		if tool.What != "" {
			t.Error(tool)
		}
	}
}

// A recorder is a test that continues after Skip or Fatal.
type recorder struct {
	testing.TB
	ended string
}

func (r *recorder) Helper()                   {}
func (r *recorder) Skip(args ...any)          { r.ended = "skipped: " + fmt.Sprint(args...) }
func (r *recorder) Fatal(args ...any)         { r.ended = "failed: " + fmt.Sprint(args...) }
func (r *recorder) Fatalf(f string, a ...any) { r.ended = "failed: " + fmt.Sprintf(f, a...) }

func TestNeed(t *testing.T) {
	php := "not run: PHP programs (internal/snippet): install php-cli and php-curl, or run make test-deps"
	tests := []struct {
		name, all, missing, want string
	}{
		{"php", "", "curl php", "skipped: " + php},
		{"php", "1", "curl php", "failed: " + php},
		{"csharp", "", "csharp", "skipped: not run: C# programs (internal/snippet): " +
			"install mono-mcs, mono-runtime and libmono-system-net-http4.0-cil, or run make test-deps"},
		{"php", "1", "curl", ""},
		{"php", "", "", ""},
		{"mount", "", "mount", "skipped: not run: tests on a small disk, which only root may mount (internal/spool)"},
		{"cobol", "", "", `failed: no tool is named "cobol"`},
	}
	for _, tt := range tests {
		t.Setenv(VariableAll, tt.all)
		t.Setenv(VariableMissing, tt.missing)
		r := &recorder{TB: t}
		if Need(r, tt.name); r.ended != tt.want {
			t.Errorf("%s with %s=%s and %s=%q: %q, want %q", tt.name, VariableAll, tt.all, VariableMissing, tt.missing, r.ended, tt.want)
		}
	}
}

func TestProbe(t *testing.T) {
	t.Setenv(VariableMissing, "") // so that it is restored
	if err := os.Unsetenv(VariableMissing); err != nil {
		t.Fatal(err)
	}
	for probe, want := range map[string]bool{"exit 0": false, "exit 1": true, "no-such-program": true} {
		if got := (Tool{probe: probe}).missing(t.Context()); got != want {
			t.Errorf("%s: missing is %t, want %t", probe, got, want)
		}
	}
}

// TestTools checks that the tests of each directory in the list ask for the tool.
func TestTools(t *testing.T) {
	t.Parallel()
	place := regexp.MustCompile(`(?:cmd|internal)/[\w/]+`)
	for _, tool := range Tools() {
		for _, dir := range place.FindAllString(tool.What, -1) {
			if !mentions(t, "../../../"+dir, `"`+tool.Name+`"`) {
				t.Errorf("no test in %s asks for %s", dir, tool.Name)
			}
		}
	}
}

func mentions(t *testing.T, dir, text string) bool {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), "_test.go") {
			continue
		}
		content, err := os.ReadFile(dir + "/" + entry.Name())
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(content), text) && strings.Contains(string(content), "toolchain.Need(") {
			return true
		}
	}
	return false
}
