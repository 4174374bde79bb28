package main

import (
	"testing"

	"upcall/internal/cli"
)

// TestScripts: shells complete all commands and flags, and the manual page has them.
func TestScripts(t *testing.T) {
	t.Parallel()
	program.CheckScripts(t, "receiver", &commands{}, helpTexts().CloneWith(cli.OSSHelp()))
}
