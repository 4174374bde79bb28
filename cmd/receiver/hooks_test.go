package main

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/cli"
	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/testing/clitest"
)

// TestHooks leads an endpoint through all that an operator does with one.
func TestHooks(t *testing.T) {
	t.Parallel()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-App") != "1" {
			w.WriteHeader(http.StatusTeapot)
		}
		w.Write([]byte("thanks"))
	}))
	defer app.Close()
	env := clitest.Env{"UPCALL_DATABASE_URL": dbtest.URL(t), "UPCALL_HOOKS_ALLOW_HTTP": "true", "UPCALL_HOOKS_ALLOW_CIDRS": "127.0.0.0/8"}
	output := func(args ...string) string {
		t.Helper()
		return program.Output(t, env, append([]string{"hooks"}, args...)...)
	}
	parsed := func(text string, to any) {
		t.Helper()
		if err := json.Unmarshal([]byte(text), to); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
	}
	output("list")
	var added struct{ ID, Name, URL, Secret string }
	parsed(output("add", "--url", app.URL+"/a", "--name", "app", "--bucket", "photos", "--key-glob", "a/{b,c}.jpg", "--var", "uid=7"), &added)
	if added.Name != "app" || added.URL != app.URL+"/a" || !strings.HasPrefix(added.Secret, "whsec_") || len(added.ID) != 36 {
		t.Errorf("added %+v", added)
	}
	if _, _, err := program.Execute(t, env, "hooks", "test", "app"); err == nil || !strings.Contains(err.Error(), "418") {
		t.Errorf("the answer of a teapot: %v", err)
	}
	output("update", "app", "--header", "X-App=1", "--clear", "var", "--max-in-flight", "1", "--on", "gone", "--on", "disputed")
	if got := output("test", added.ID); !strings.Contains(got, "200 after ") || !strings.Contains(got, "thanks") {
		t.Errorf("test printed %q", got)
	}
	if got := output("pause", "app"); got != "app is paused\n" {
		t.Errorf("pause printed %q", got)
	}
	var shown struct {
		Endpoint struct {
			State       string
			On          []string
			KeyGlobs    []string `json:"key_globs"`
			Vars        map[string]string
			MaxInFlight int `json:"max_in_flight"`
			Headers     []string
		}
		Attempts []struct{ Reason string }
	}
	text := output("show", "app", "--format", "json")
	parsed(text, &shown)
	if e := shown.Endpoint; e.State != "paused" || strings.Join(e.On, " ") != "gone disputed" || len(e.KeyGlobs) != 1 ||
		len(e.Vars) != 0 || e.MaxInFlight != 1 || e.Headers[0] != "X-App" ||
		len(shown.Attempts) != 2 || shown.Attempts[0].Reason != "test" || strings.Contains(text, added.Secret) {
		t.Errorf("shown %+v", shown)
	}
	output("show", "app")
	var rotated struct{ Secret string }
	parsed(output("rotate", "app"), &rotated)
	if rotated.Secret == added.Secret || !strings.HasPrefix(rotated.Secret, "whsec_") {
		t.Error("the secret is the same")
	}
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(added.Secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := output("rotate", "app", "--secret-file", file); strings.Contains(got, "secret") {
		t.Errorf("a secret that was given is printed: %s", got)
	}
	if got := output("redeliver", "--format", "json"); got != `{"redelivered":0}`+"\n" {
		t.Errorf("redeliver printed %q", got)
	}
	if got := output("failed", "app", "--format", "json"); got != "[]\n" {
		t.Errorf("failed printed %q", got)
	}
	output("failed", "--waiting")
	output("resume", "app", "--format", "json")
	if got := output("list"); !strings.Contains(got, "app") || !strings.Contains(got, "active") {
		t.Errorf("list printed %q", got)
	}
	if got := output("remove", "app"); got != "app is removed\n" {
		t.Errorf("remove printed %q", got)
	}
	if got := output("list", "--format", "json"); got != "[]\n" {
		t.Errorf("list printed %q", got)
	}
}

// TestHooksReject: every mistake is one line that names the flag, and changes nothing.
func TestHooksReject(t *testing.T) {
	t.Parallel()
	database := dbtest.URL(t)
	env := clitest.Env{"UPCALL_DATABASE_URL": database}
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	const url = "https://app.example.com/"
	program.Output(t, env, "hooks", "add", "--url", url, "--name", "app")
	local := clitest.Env{"UPCALL_DATABASE_URL": database, "UPCALL_HOOKS_ALLOW_HTTP": "true", "UPCALL_HOOKS_ALLOW_CIDRS": "127.0.0.0/8"}
	program.Output(t, local, "hooks", "add", "--url", "http://127.0.0.1:1/", "--name", "local")
	if _, _, err := program.Execute(t, local, "hooks", "test", "local"); err == nil { // so that there is an attempt
		t.Error("port 1 has answered")
	}
	for _, due := range []string{"NULL", "now() + interval '1 hour'"} { // and a dead letter, and a retry that waits
		dbtest.Execute(t, database, `INSERT INTO upcall.hook_retries (endpoint_id, event_id, received_at, kind, reason, attempts, due_at)
			SELECT id, gen_random_uuid(), now(), 'recorded', 'retry', 1, `+due+` FROM upcall.hook_endpoints`)
	}
	before := allOfHooks(t, env, database)
	id := "11111111-2222-3333-4444-555555555555"
	for _, tt := range []struct{ args, says string }{
		{"add", "--url"},
		{"add --url http://app.example.com/", "--url: it is plain http"},
		{"add --url https://10.0.0.1/", "--url: its host is the address 10.0.0.1, which is not public"},
		{"add --url nonsense", "--url: it is not a URL of https"},
		{"add --url " + url + " --name app", "--name: there is an endpoint named app already"},
		{"add --url " + url + " --name a/b", `--name: "a/b" is not a name`},
		{"add --url " + url + " --on deleted", `--on: "deleted" is not an event`},
		{"add --url " + url + " --bucket X", "--bucket: "},
		{"add --url " + url + " --key-glob a[", `--key-glob: "a[" is not a glob`},
		{"add --url " + url + " --mime-type image", "--mime-type: "},
		{"add --url " + url + " --var uid", `--var: "uid" has no name or no value`},
		{"add --url " + url + " --var x:uid=7", `--var: "x:uid"`},
		{"add --url " + url + " --var a=1 --var a=2", `--var: "a" is given twice`},
		{"add --url " + url + " --header Host=x", "--header: Host is set by each delivery"},
		{"add --url " + url + " --max-in-flight 0", "--max-in-flight: "},
		{"add --url " + url + " --max-in-flight 65", "--max-in-flight: 65 is not between 1 and 64"},
		{"add --url " + url + " --from yesterday", `--from: "yesterday" is none of them`},
		{"add --url " + url + " --secret-file " + file, "--secret-file: the secret does not begin with whsec_"},
		{"add --url " + url + " --secret-file /does/not/exist", "--secret-file: "},
		{"add --url " + url + " --hooks-allow-cidrs 10.0.0.1/8", "UPCALL_HOOKS_ALLOW_CIDRS: "},
		{"show other", `ID: there is no endpoint "other"`},
		{"show " + id, "ID: there is no endpoint"},
		{"show app --limit 0", "--limit: 0 is not between 1 and 1000"},
		{"test other", "ID: there is no endpoint"},
		{"update app", "nothing to change"},
		{"update app --url ftp://x/", "--url: it is not a URL of https"},
		{"update app --clear url", `--clear: there is no "url"`},
		{"update app --max-in-flight 0", "--max-in-flight: "},
		{"update app --name=", "--name: it is empty"},
		{"update other --name new", "ID: there is no endpoint"},
		{"pause other", "ID: there is no endpoint"},
		{"resume other", "ID: there is no endpoint"},
		{"rotate other", "ID: there is no endpoint"},
		{"rotate app --keep -1s", "--keep"},
		{"rotate app --keep 721h", "--keep: 721h0m0s is not between 0s and 720h0m0s"},
		{"remove other", "ID: there is no endpoint"},
		{"failed other", "ID: there is no endpoint"},
		{"redeliver --event x", `--event: "x" is not the id of an event`},
		{"redeliver --event " + id, "--event: there is no event"},
		{"redeliver --since today", `--since: "today" is not a time`},
		{"redeliver --since 2026-11-27T08:00:00Z --until 2026-11-27T08:00:00Z", "--until: "},
		{"redeliver --endpoint other", "ID: there is no endpoint"},
	} {
		err := program.Error(t, env, append([]string{"hooks"}, strings.Fields(tt.args)...)...)
		if !errors.Is(err, cli.ErrUsage) || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "\n") ||
			strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", tt.args, err)
		}
	}
	if diff := cmp.Diff(before, allOfHooks(t, env, database)); diff != "" {
		t.Errorf("something has changed: %s", diff)
	}
}

// allOfHooks returns all that is shown of endpoints, attempts and failed deliveries, and the rows,
// which also hold secrets.
func allOfHooks(t *testing.T, env clitest.Env, database string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, args := range []string{"list --format json", "list", "show local --format json", "failed --format json",
		"failed --waiting --format json"} {
		if all[args] = program.Output(t, env, append([]string{"hooks"}, strings.Fields(args)...)...); len(all[args]) < 100 {
			t.Fatalf("hooks %s shows nothing: %s", args, all[args])
		}
	}
	pool := dbtest.Open(t, database, eventstore.Open)
	for _, table := range []string{"hook_endpoints", "hook_attempts", "hook_retries", "hook_counts", "hook_changes", "feed_consumers"} {
		var rows string
		err := pool.QueryRow(t.Context(),
			"SELECT coalesce(string_agg(r::text, E'\\n' ORDER BY r::text), '') FROM upcall."+table+" r").Scan(&rows)
		if err != nil {
			t.Fatal(err)
		}
		all[table] = rows
	}
	return all
}
