// Package systemd_test checks the units.
package systemd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"upcall/internal/testing/toolchain"
)

// most is the exposure that systemd-analyze finds; below 2.0 it says OK. What is left is mostly the network,
// without which nothing works.
const most = 1.1

// units copies the units to a directory in which the programs that they start exist, and returns their
// paths. systemd-analyze checks that; the programs themselves are not built for it.
func units(t *testing.T) []string {
	t.Helper()
	toolchain.Need(t, "systemd")
	found, err := filepath.Glob("*.service")
	if err != nil || len(found) != 3 {
		t.Fatalf("units: %v, %v", found, err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	program := regexp.MustCompile(`(?m)^ExecStart=/usr/local/bin/(receiver|issuer) `)
	for i, name := range found {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !program.Match(text) {
			t.Fatalf("%s starts none of the programs", name)
		}
		found[i] = filepath.Join(dir, name)
		if err := os.WriteFile(found[i], program.ReplaceAll(text, []byte("ExecStart="+self+" ")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return found
}

// TestVerify: systemd knows every setting and has nothing to say about any.
func TestVerify(t *testing.T) {
	t.Parallel()
	args := append([]string{"verify", "--man=no"}, units(t)...)
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", args...).CombinedOutput()
	if err != nil || strings.Contains(string(out), "upcall-") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestSecurity: the sandbox is as tight as it was.
func TestSecurity(t *testing.T) {
	t.Parallel()
	for _, path := range units(t) {
		out, err := exec.CommandContext(t.Context(), "systemd-analyze", "security", "--offline=true", "--no-pager", path).Output()
		overall := regexp.MustCompile(`exposure level for \S+: ([\d.]+) OK`).FindSubmatch(out)
		if err != nil || overall == nil {
			t.Fatalf("%s: %v: %s", filepath.Base(path), err, out)
		}
		if exposure, err := strconv.ParseFloat(string(overall[1]), 64); err != nil || exposure > most {
			t.Errorf("%s: %v, %v; systemd-analyze security --offline=true says why", filepath.Base(path), exposure, err)
		}
	}
}
