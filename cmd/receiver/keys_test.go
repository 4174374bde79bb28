package main

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"upcall/internal/apikey"
	"upcall/internal/cli"
	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/testing/clitest"
)

func TestKeys(t *testing.T) {
	t.Parallel()
	env := clitest.Env{"UPCALL_DATABASE_URL": dbtest.URL(t)}
	for _, role := range []string{"viewer", "operator"} {
		stdout, stderr, err := program.Execute(t, env, "keys", "add", "--role", role, "--id", "of-"+role)
		if err != nil {
			t.Fatal(err)
		}
		key, ok := strings.CutSuffix(stdout, "\n")
		if id, _, err := apikey.Parse(key); err != nil || id != "of-"+role || !ok || strings.Contains(stderr, key) {
			t.Errorf("printed %q (%v), and %q", stdout, err, stderr)
		}
	}
	made := strings.TrimSpace(program.Output(t, env, "keys", "add", "--role", "viewer"))
	id, _, err := apikey.Parse(made)
	if err != nil {
		t.Fatalf("%v in %q", err, made)
	}
	program.Output(t, env, "keys", "revoke", "of-viewer")
	program.Output(t, env, "keys", "revoke", "of-viewer") // again
	var list []struct {
		ID, Role  string
		CreatedAt time.Time  `json:"created_at"`
		RevokedAt *time.Time `json:"revoked_at"`
	}
	text := program.Output(t, env, "keys", "list", "--format", "json")
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != 3 || list[0].ID != "of-viewer" || list[0].Role != "viewer" || list[0].RevokedAt == nil || list[1].ID != "of-operator" ||
		list[1].Role != "operator" || list[1].RevokedAt != nil || list[2].ID != id || time.Since(list[2].CreatedAt) > time.Hour {
		t.Errorf("listed %s", text)
	}
	if text := program.Output(t, env, "keys", "list"); strings.Count(text, "\n") != 4 || strings.Contains(text, "upk_") {
		t.Errorf("listed %s", text)
	}
}

// TestKeysRefused checks that each mistake is one line that names the flag, and adds or revokes
// nothing.
func TestKeysRefused(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t)
	env := clitest.Env{"UPCALL_DATABASE_URL": url}
	key := strings.TrimSpace(program.Output(t, env, "keys", "add", "--role", "viewer", "--id", "app"))
	pool := dbtest.Open(t, url, eventstore.Open)
	issuers := eventstore.NewAPIKeys(pool)
	web := eventstore.APIKey{ID: "web", Hash: make([]byte, 32), Policy: "photos", CreatedAt: time.Now()}
	if err := issuers.Add(t.Context(), web); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ args, want string }{
		{"add --id b", "--role"}, {"add --role admin", "--role"}, {"add --role Viewer", "--role"}, {"add --role viewer --id A", "--id"},
		{"add --role viewer --id app", "--id"}, {"add --role viewer --id web", "--id"}, {"add --policy photos", "--policy"},
		{"revoke web", "ID"}, {"revoke other", "ID"}, {"revoke A", "ID"}, {"revoke " + key, "ID"}, {"revoke", "id"},
		{"list --format yaml", "--format"}, {"show app", "show"},
	} {
		stdout, _, err := program.Execute(t, env, append([]string{"keys"}, strings.Fields(tt.args)...)...)
		if !errors.Is(err, cli.ErrUsage) || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") || stdout != "" {
			t.Errorf("keys %s: printed %q, %v", strings.ReplaceAll(tt.args, key, "KEY"), stdout, err)
		}
		if err != nil && strings.Contains(err.Error(), key) {
			t.Errorf("keys %s: the error shows the key", strings.ReplaceAll(tt.args, key, "KEY"))
		}
	}
	if err := program.Error(t, clitest.Env{}, "keys", "add", "--role", "x"); !strings.Contains(err.Error(), "--role") ||
		!strings.Contains(err.Error(), "UPCALL_DATABASE_URL") {
		t.Errorf("not all mistakes are told: %v", err)
	}
	var state string
	const query = `SELECT string_agg(id || coalesce(role, '-') || (revoked_at IS NULL), ' ' ORDER BY id) FROM upcall.api_keys`
	if err := pool.QueryRow(t.Context(), query).Scan(&state); err != nil {
		t.Fatal(err)
	}
	if state != "appviewertrue web-true" {
		t.Errorf("the keys are %q", state)
	}
	if err := program.IntoBrokenPipe(t, env, "keys", "add", "--role", "viewer"); !errors.Is(err, clitest.ErrBrokenPipe) {
		t.Errorf("into a broken pipe: %v", err)
	}
}

// TestKeyOpensTheAPI checks that a running receiver takes a key with a role, and no issuer's.
func TestKeyOpensTheAPI(t *testing.T) {
	t.Parallel()
	env := clitest.Env{"UPCALL_DATABASE_URL": dbtest.URL(t), "UPCALL_TOKEN": "off"}
	running := program.Start(t, env, "serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")
	var serving struct {
		Msg         string
		AdminListen string `json:"admin_listen"`
	}
	running.Line(t, func(line string) bool {
		return json.Unmarshal([]byte(line), &serving) == nil && serving.Msg == "serving"
	})
	viewer := strings.TrimSpace(program.Output(t, env, "keys", "add", "--role", "viewer"))
	for _, tt := range []struct {
		method, path, key string
		status            int
	}{
		{"GET", "/v1/events", viewer, 200}, {"GET", "/v1/idle?wait=10s", viewer, 200}, {"GET", "/openapi.yaml", "", 200},
		{"POST", "/v1/hooks", viewer, 403}, {"GET", "/v1/events", "", 401}, {"GET", "/metrics", "", 200},
	} {
		r, err := http.NewRequestWithContext(t.Context(), tt.method, "http://"+serving.AdminListen+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if tt.key != "" {
			r.Header.Set("Authorization", "Bearer "+tt.key)
		}
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != tt.status {
			t.Errorf("%s %s: %d %s", tt.method, tt.path, response.StatusCode, body)
		}
		if tt.path == "/metrics" && !strings.Contains(string(body), `upcall_api_requests_total{route="GET /v1/idle",status="200"} 1`) {
			t.Error("the metrics do not count the requests")
		}
	}
}
