package main

import (
	"testing"
)

// TestScripts: shells complete all commands and flags, and the manual page has them.
func TestScripts(t *testing.T) {
	t.Parallel()
	program.CheckScripts(t, "ossemu", &commands{}, helpTexts())
}
