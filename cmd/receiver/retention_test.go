package main

import (
	"errors"
	"strings"
	"testing"

	"upcall/internal/cli"
	"upcall/internal/testing/clitest"
)

// TestRetentionIsChecked tests typing mistakes, which must not delete events.
func TestRetentionIsChecked(t *testing.T) {
	t.Parallel()
	for _, given := range []string{"30d", "400", "0d", "400h", "-400d"} {
		err := program.Error(t, clitest.Env{"UPCALL_RETENTION": given, "UPCALL_TOKEN": "off",
			"UPCALL_DATABASE_URL": "postgres://nobody@127.0.0.1:1/none"}, "serve")
		if !errors.Is(err, cli.ErrUsage) || !strings.Contains(err.Error(), "UPCALL_RETENTION") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want one line about UPCALL_RETENTION", given, err)
		}
	}
}
