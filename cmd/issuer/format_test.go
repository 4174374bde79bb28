package main

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"upcall/internal/cli"
	"upcall/internal/snippet"
	"upcall/internal/testing/clitest"
)

// TestFormats checks that each language is a format that prints the program and nothing else.
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
		stdout, stderr, status := execute(t, goodEnv(),
			slices.Concat(good, []string{"--content-type", "image/jpeg", "--format", language})...)
		if status != 0 || stderr != "" {
			t.Errorf("%s: status %d: %s", language, status, stderr)
		}
		for _, part := range []string{"x-oss-signature=", "x-oss-callback", "image/jpeg", "CallbackFailed"} {
			if !strings.Contains(stdout, part) {
				t.Errorf("%s: the program lacks %s:\n%s", language, part, stdout)
			}
		}
		args := slices.Concat(good, []string{"--content-type", "image/jpeg", "--format", language})
		if err := program.IntoBrokenPipe(t, goodEnv(), args...); !errors.Is(err, clitest.ErrBrokenPipe) || cli.ExitCode(err) != 1 {
			t.Errorf("%s into a broken pipe: %v", language, err)
		}
	}
}
