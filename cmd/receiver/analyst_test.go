package main

import (
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"upcall/internal/cli"
	"upcall/internal/dbtest"
	"upcall/internal/testing/clitest"
)

func TestAnalyst(t *testing.T) {
	t.Parallel()
	server := dbtest.NewServer(t) // roles are the cluster's
	env := clitest.Env{"UPCALL_DATABASE_URL": server.URL()}
	stdout, stderr, err := program.Execute(t, env, "analyst", "add", "ann")
	if err != nil {
		t.Fatal(err)
	}
	password, ok := strings.CutSuffix(stdout, "\n")
	if !ok || strings.ContainsAny(password, " \n") || strings.Contains(stderr, password) || !strings.Contains(stderr, "ann") {
		t.Errorf("printed %q and %q", stdout, stderr)
	}
	u, err := url.Parse(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("ann", password)
	conn, err := pgx.Connect(t.Context(), u.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var list []struct {
		Name     string
		Login    bool
		Sessions int
		Settings []string
	}
	if err := json.Unmarshal([]byte(program.Output(t, env, "analyst", "list", "--format", "json")), &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != 1 || list[0].Name != "ann" || !list[0].Login || list[0].Sessions != 1 || len(list[0].Settings) != 5 {
		t.Errorf("listed %+v", list)
	}
	if text := program.Output(t, env, "analyst", "list"); strings.Count(text, "\n") != 2 || !strings.Contains(text, "statement_timeout=60s") {
		t.Errorf("listed %s", text)
	}
	if err := program.IntoBrokenPipe(t, env, "analyst", "add", "bob"); !errors.Is(err, clitest.ErrBrokenPipe) {
		t.Errorf("into a broken pipe: %v", err)
	}
	for _, tt := range []struct{ args, want string }{
		{"add", "name"}, {"add ann", "NAME"}, {"add upcall", "NAME"}, {"add Bob", "NAME"}, {"add pg_bob", "NAME"},
		{`add b"ob`, "NAME"}, {"remove nobody", "NAME"}, {"remove upcall", "NAME"}, {"remove upcall_analyst", "NAME"}, {"remove", "name"},
		{"list --format yaml", "--format"}, {"show ann", "show"},
	} {
		stdout, _, err := program.Execute(t, env, append([]string{"analyst"}, strings.Fields(tt.args)...)...)
		if !errors.Is(err, cli.ErrUsage) || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") || stdout != "" {
			t.Errorf("analyst %s: printed %q, %v", tt.args, stdout, err)
		}
	}
	if err := program.Error(t, clitest.Env{}, "analyst", "add", "Bob"); !strings.Contains(err.Error(), "NAME") ||
		!strings.Contains(err.Error(), "UPCALL_DATABASE_URL") {
		t.Errorf("not all mistakes are told: %v", err)
	}
	for _, name := range []string{"ann", "bob"} {
		if got := program.Output(t, env, "analyst", "remove", name); got != "" {
			t.Errorf("remove printed %q", got)
		}
	}
	if _, err := conn.Exec(t.Context(), "SELECT 1"); err == nil {
		t.Error("the session is still there")
	}
	if text := program.Output(t, env, "analyst", "list", "--format", "json"); strings.TrimSpace(text) != "[]" {
		t.Errorf("listed %s", text)
	}
}
