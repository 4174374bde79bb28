package main

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"upcall/internal/testing/clitest"
	"upcall/internal/testing/toolchain"
)

// TestPage runs the commands of docs/emulator.md that are marked so.
func TestPage(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "curl")
	page, err := os.ReadFile("../../docs/emulator.md")
	if err != nil {
		t.Fatal(err)
	}
	address, _, _ := boot(t, clitest.Env{"OSSEMU_LISTEN": "127.0.0.1:0"})
	commands := 0
	for _, block := range regexp.MustCompile("(?ms)^```sh run\n(.*?)^```$").FindAllStringSubmatch(string(page), -1) {
		for command := range strings.Lines(block[1]) {
			commands++
			shell := exec.CommandContext(t.Context(), "sh", "-c", command)
			shell.Env = append(os.Environ(), "OSS_ENDPOINT="+address)
			if out, err := shell.CombinedOutput(); err != nil {
				t.Errorf("%s: %v: %s", command, err, out)
			}
		}
	}
	if commands < 10 {
		t.Errorf("the page has %d commands that run", commands)
	}
}
