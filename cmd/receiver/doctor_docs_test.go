package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	// A block of commands, and the block of what it prints, if that stands behind it.
	pageBlock = regexp.MustCompile("(?ms)^```sh run\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?")
	// A command that ends in a status other than 0 says so.
	pageStatus = regexp.MustCompile(`# status (\d)\n?$`)
)

// TestVerificationPage runs the commands of docs/verification.md with the program as
// it is built, and compares status and output with the page.
func TestVerificationPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/verification.md")
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(bin, "receiver"), ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	commands := 0
	for _, block := range pageBlock.FindAllStringSubmatch(string(page), -1) {
		commands++
		command, wantOut := block[1], block[2]
		wantStatus := "0"
		if status := pageStatus.FindStringSubmatch(command); status != nil {
			wantStatus = status[1]
		}
		shell := exec.CommandContext(t.Context(), "sh", "-c", command)
		shell.Dir = "../.."
		shell.Env = []string{"PATH=" + bin + ":" + os.Getenv("PATH")}
		out, err := shell.Output()
		status := "0"
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			status = string(rune('0' + exit.ExitCode()))
		} else if err != nil {
			t.Fatal(err)
		}
		if status != wantStatus || string(out) != wantOut {
			t.Errorf("%sstatus %s, want %s; it printed\n%swant\n%s", command, status, wantStatus, out, wantOut)
		}
	}
	if commands < 10 || strings.Count(string(page), "```sh run") != commands {
		t.Errorf("the page has %d commands that run", commands)
	}
}
