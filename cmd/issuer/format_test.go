package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"upcall/internal/cli"
	"upcall/internal/snippet"
	"upcall/internal/testing/toolchain"
)

// TestFormats: each language is a format, and what is printed is the program alone.
func TestFormats(t *testing.T) {
	t.Parallel()
	help, _, status := execute(t, goodEnv(), "put", "--help")
	if status != 0 {
		t.Fatalf("status %d", status)
	}
	for _, language := range snippet.Languages() {
		if !strings.Contains(strings.Join(strings.Fields(help), " "), language) {
			t.Errorf("the help does not name %s", language)
		}
		stdout, stderr, status := execute(t, goodEnv(), slices.Concat(good, []string{"--content-type", "image/jpeg", "--format", language})...)
		if status != 0 || stderr != "" {
			t.Errorf("%s: status %d: %s", language, status, stderr)
		}
		for _, part := range []string{"x-oss-signature=", "x-oss-callback", "image/jpeg", "CallbackFailed"} {
			if !strings.Contains(stdout, part) {
				t.Errorf("%s: the program does not hold %s:\n%s", language, part, stdout)
			}
		}
		if err := run(t.Context(), slices.Concat(good, []string{"--content-type", "image/jpeg", "--format", language}), func(name string) string { return goodEnv()[name] }, cli.Stdio{Out: brokenPipe{}, Err: os.Stderr}); cli.ExitCode(err) != 1 {
			t.Errorf("%s into a broken pipe: %v", language, err)
		}
	}
}

// TestFormatCurl runs a program that the command line made; package snippet runs them
// all.
func TestFormatCurl(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "curl")
	w := newWorld(t)
	program, stderr, status := execute(t, w.env, "put", "--bucket", "demo", "--key", "it's.txt", "--meta", "a=it's $HOME", "--callback-url", w.receiver+"/cb", "--format", "curl")
	if status != 0 || stderr != "" {
		t.Fatalf("status %d: %s", status, stderr)
	}
	dir := t.TempDir()
	for name, content := range map[string]string{"upload.sh": program, "FILE": "hello world"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sh := exec.CommandContext(t.Context(), "sh", "upload.sh", "FILE")
	sh.Dir = dir
	if out, err := sh.CombinedOutput(); err != nil || string(out) != answer+"\n" {
		t.Errorf("%v: %s", err, out)
	}
	w.callback(t, "it's.txt")
}
