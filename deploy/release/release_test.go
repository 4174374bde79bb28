// Package release_test builds a release.
package release_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"upcall/internal/testing/toolchain"
)

// environ has what a release takes from Git; the bill of materials needs the network.
func environ() []string {
	return append(os.Environ(), "SBOM=no", "COMMIT="+strings.Repeat("ab", 20), "SOURCE_DATE_EPOCH=1767323045")
}

// TestReproducible builds the same sources in two directories, and gets the same bytes. What is in the archive runs
// in a directory that has nothing else, so it needs no library and no file of the machine.
func TestReproducible(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "gnutar")
	out := t.TempDir()
	first, second := build(t, "../..", out), build(t, moved(t), t.TempDir())
	if !bytes.Equal(first, second) {
		t.Error("two directories make different archives")
	}
	t.Run("tree", func(t *testing.T) { checkTree(t, out) })
	t.Run("images", func(t *testing.T) { checkImages(t, out) })
	dir := t.TempDir()
	unpack := exec.CommandContext(t.Context(), "tar", "-xz", "--strip-components=1", "-C", dir)
	unpack.Stdin = bytes.NewReader(first)
	if out, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, path := range []string{"README.md", "systemd/upcall-receiver.service", "proxy/Caddyfile", "ram/issuer.json",
		"man/receiver.1", "man/issuer.1", "man/ossemu.1", "completions/receiver.bash", "completions/issuer.zsh", "completions/ossemu.fish",
		"helm/upcall/templates/receiver.yaml"} {
		if _, err := os.Stat(filepath.Join(dir, path)); err != nil {
			t.Error(err)
		}
	}
	chart, err := os.ReadFile(filepath.Join(dir, "helm/upcall/Chart.yaml"))
	if err != nil || !strings.Contains(string(chart), "\nversion: 1.2.3\nappVersion: \"v1.2.3\"\n") {
		t.Errorf("%v: %s", err, chart)
	}
	for _, name := range []string{"issuer", "receiver", "ossemu"} {
		want := name + " v1.2.3 (commit abababababab of 2026-01-02T03:04:05Z, go"
		run := []string{filepath.Join(dir, name), "--version"}
		if os.Getuid() == 0 { // who may: a machine with the program alone
			bare := t.TempDir()
			if out, err := exec.CommandContext(t.Context(), "cp", run[0], bare).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			run = []string{"chroot", bare, "/" + name, "--version"}
		}
		out, err := exec.CommandContext(t.Context(), run[0], run[1:]...).CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), want) {
			t.Errorf("%v: %s, want %s", err, out, want)
		}
	}
}

// TestVersions: what would be a path, a flag of a compiler or an expression of sed is no version, and nothing is made of it.
func TestVersions(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"", "v1/2", "../v1", "v1 2", "v1&", "v1'", "v1\n", "$(id)", "v1\\", "vé"} {
		out := filepath.Join(t.TempDir(), "out")
		text, err := exec.CommandContext(t.Context(), "sh", "build.sh", version, out, "linux/amd64").CombinedOutput()
		if _, statErr := os.Stat(out); err == nil || statErr == nil || !strings.HasPrefix(string(text), "build.sh: a version has") {
			t.Errorf("%q: %v, %v: %s", version, err, statErr, text)
		}
	}
}

// moved returns another directory with the sources.
func moved(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"cmd", "internal", "migrations", "deploy", "examples"} {
		if err := os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join("../..", name))); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"go.mod", "go.sum", "README.md", "CHANGELOG.md", "SECURITY.md"} {
		if out, err := exec.CommandContext(t.Context(), "cp", filepath.Join("../..", name), dir).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	return dir
}

// build makes the archive for this kind of machine in the directory out, and returns it. Its checksum is in SHA256SUMS.
func build(t *testing.T, sources, out string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", filepath.Join(sources, "deploy/release/build.sh"), "v1.2.3", out, "linux/amd64")
	cmd.Env = environ()
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	check := exec.CommandContext(t.Context(), "sha256sum", "--check", "--strict", "SHA256SUMS")
	check.Dir = out
	if text, err := check.CombinedOutput(); err != nil || strings.Count(string(text), ": OK") != 1 {
		t.Errorf("%v: %s", err, text)
	}
	archive, err := os.ReadFile(filepath.Join(out, "upcall-v1.2.3-linux-amd64.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	return archive
}
