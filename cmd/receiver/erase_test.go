package main

import (
	"errors"
	"strings"
	"testing"

	"upcall/internal/cli"
	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/testing/clitest"
)

// TestEraseRefused checks that each mistake is one line that names the flag, and erases nothing.
func TestEraseRefused(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t)
	env := clitest.Env{"UPCALL_DATABASE_URL": url}
	for _, tt := range []struct{ args, want string }{
		{"", "--var"}, {"--var uid=42 --upload 5c3d9175-3333-4444-8888-5c3d91755c3d", "--var"}, {"--var uid", "--var"}, {"--var =42", "--var"},
		{"--var uid=", "--var"}, {"--var x:uid=42", "--var"}, {"--upload 42", "--upload"}, {"uid=42", "uid=42"}, {"--format yaml --var a=b", "--format"},
	} {
		stdout, _, err := program.Execute(t, env, append([]string{"erase"}, strings.Fields(tt.args)...)...)
		if !errors.Is(err, cli.ErrUsage) || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") || stdout != "" {
			t.Errorf("erase %s: printed %q, %v", tt.args, stdout, err)
		}
	}
	modest := dbtest.Role(t, url, "GRANT USAGE ON SCHEMA upcall TO ROLE", "GRANT SELECT ON ALL TABLES IN SCHEMA upcall TO ROLE")
	err := program.Error(t, clitest.Env{"UPCALL_DATABASE_URL": modest}, "erase", "--var", "uid=42")
	if !errors.Is(err, eventstore.ErrMistake) || !strings.Contains(err.Error(), "owns the tables") {
		t.Errorf("with a role that may not: %v", err)
	}
	pool := dbtest.Open(t, url, eventstore.Open)
	var noted int
	if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM upcall.erasures").Scan(&noted); err != nil || noted != 0 {
		t.Errorf("%d requests are noted, %v", noted, err)
	}
}
