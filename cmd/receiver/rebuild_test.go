package main

import (
	"errors"
	"strings"
	"testing"

	"upcall/internal/dbtest"
	"upcall/internal/rollup"
	"upcall/internal/testing/clitest"
)

// TestRebuild: without a running receiver, the command does the work itself.
func TestRebuild(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t)
	dbtest.Execute(t, url, `INSERT INTO upcall.rollup_hourly VALUES (0, now(), 'b', 'x/y', 'callback', 7, 7, 7, 7)`)
	env := clitest.Env{"UPCALL_DATABASE_URL": url}
	if out := program.Output(t, env, "rebuild", "rollup"); !strings.Contains(out, "built again") {
		t.Errorf("printed %q", out)
	}
	if err := program.Error(t, env, "rebuild", "hours"); !errors.Is(err, rollup.ErrName) {
		t.Errorf("got %v", err)
	}
}
