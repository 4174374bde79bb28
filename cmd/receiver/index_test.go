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
	"upcall/internal/eventstore"
	"upcall/internal/testing/clitest"
)

func TestIndex(t *testing.T) {
	t.Parallel()
	databaseURL := dbtest.URL(t)
	env := clitest.Env{"UPCALL_DATABASE_URL": databaseURL}
	program.Output(t, env, "maintain") // makes partitions
	for _, name := range []string{"uid", "用户 'A'", "uid"} {
		stdout, stderr, err := program.Execute(t, env, "index", "add", name)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(stdout, "the variable "+name+" is indexed: 4 partitions, 0.") || !strings.Contains(stderr, "CPU time") {
			t.Errorf("printed %q and %q", stdout, stderr)
		}
	}
	pool := dbtest.Open(t, databaseURL, eventstore.Open)
	if _, err := pool.Exec(t.Context(), "DROP INDEX upcall.upload_events_var_uid; "+
		"CREATE INDEX upload_events_var_uid ON ONLY upcall.upload_events USING spgist ((vars->>'uid'))"); err != nil {
		t.Fatal(err)
	}
	var list []struct {
		Variable, State, Index     string
		Partitions, Missing, Bytes int
		Scans                      *int
	}
	text := program.Output(t, env, "index", "list", "--format", "json")
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != 2 || list[0].Variable != "uid" || list[0].State != "incomplete" || list[0].Missing != 4 || list[1].Variable != "用户 'A'" ||
		list[1].State != "ready" || list[1].Partitions != 4 || list[1].Bytes == 0 || list[1].Scans == nil {
		t.Errorf("listed %s", text)
	}
	text = program.Output(t, env, "index", "list")
	if strings.Count(text, "\n") != 3 || !strings.Contains(text, "incomplete: 4 of 4 partitions are missing; run receiver index add again") {
		t.Errorf("listed %s", text)
	}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"add"}, "name"}, {[]string{"add", ""}, "NAME"}, {[]string{"add", strings.Repeat("n", 256)}, "NAME"},
		{[]string{"add", "a\xff"}, "NAME"}, {[]string{"remove", "nothing"}, "NAME"}, {[]string{"remove", ""}, "NAME"},
		{[]string{"list", "--format", "yaml"}, "--format"}, {[]string{"add", "a", "b"}, "b"},
	} {
		stdout, _, err := program.Execute(t, env, append([]string{"index"}, tt.args...)...)
		if !errors.Is(err, cli.ErrUsage) || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") || stdout != "" {
			t.Errorf("index %q: printed %q, %v", tt.args, stdout, err)
		}
	}
	if err := program.Error(t, clitest.Env{}, "index", "add", ""); !strings.Contains(err.Error(), "NAME") ||
		!strings.Contains(err.Error(), "UPCALL_DATABASE_URL") {
		t.Errorf("not all mistakes are told: %v", err)
	}
	for _, name := range []string{"uid", "用户 'A'"} {
		if got := program.Output(t, env, "index", "remove", name); got != "" {
			t.Errorf("remove printed %q", got)
		}
	}
	if text := program.Output(t, env, "index", "list", "--format", "json"); strings.TrimSpace(text) != "[]" {
		t.Errorf("listed %s", text)
	}
}

// TestIndexOfAnOwner: a role that does not own the tables is told so, in one line, and so is
// someone who reaches no database.
func TestIndexOfAnOwner(t *testing.T) {
	t.Parallel()
	server := dbtest.NewServer(t)
	conn, err := pgx.Connect(t.Context(), server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), "CREATE ROLE guest LOGIN PASSWORD 'guest'; GRANT USAGE ON SCHEMA upcall TO guest; "+
		"GRANT SELECT ON ALL TABLES IN SCHEMA upcall TO guest"); err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("guest", "guest")
	for name, address := range map[string]string{"owns the tables": u.String(), "connect": "postgres://x@127.0.0.1:1/x"} {
		for _, args := range [][]string{{"index", "add", "uid"}, {"index", "remove", "uid"}} {
			err := program.Error(t, clitest.Env{"UPCALL_DATABASE_URL": address}, args...)
			if args[1] == "remove" && name == "owns the tables" {
				continue // there is none
			}
			if strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), name) {
				t.Errorf("%v: %v", args, err)
			}
		}
	}
}
