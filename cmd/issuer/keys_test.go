package main

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"upcall/internal/apikey"
	"upcall/internal/dbtest"
	"upcall/internal/testing/clitest"
)

const goodPolicies = `policies:
  photos:
    buckets: [demo]
    key_prefixes: ["photos/${apikey.id}/"]
    content_types: [image/*]
    max_size: 20MiB
    max_expiry: 1h
    callback_urls: ["https://uploads.example.com/oss/callback"]
    required_vars: [uid]
`

func TestKeys(t *testing.T) {
	t.Parallel()
	env := map[string]string{"UPCALL_DATABASE_URL": dbtest.URL(t), "UPCALL_POLICIES": clitest.WriteFile(t, "policies.yaml", goodPolicies)}
	made, stderr, status := execute(t, env, "keys", "add", "--policy", "photos", "--id", "web")
	if status != 0 || stderr != "issuer: created the key web with the policy photos; it is shown only once\n" {
		t.Fatalf("status %d: %s", status, stderr)
	}
	key := strings.TrimSuffix(made, "\n")
	if id, _, err := apikey.Parse(key); err != nil || id != "web" {
		t.Errorf("made %q: %v", made, err)
	}
	other, stderr, status := execute(t, env, "keys", "add", "--policy", "photos") // with a generated id
	if id, _, err := apikey.Parse(strings.TrimSuffix(other, "\n")); status != 0 || err != nil ||
		strings.Contains(stderr, strings.TrimPrefix(key, "upk_web_")) || len(id) < 8 {
		t.Errorf("status %d: %q %q", status, other, stderr)
	}

	if _, stderr, status = execute(t, env, "keys", "revoke", "web"); status != 0 || !strings.Contains(stderr, "revoked the key web") {
		t.Errorf("status %d: %s", status, stderr)
	}
	if _, stderr, status = execute(t, env, "keys", "revoke", "web"); status != 0 { // revoking again changes nothing
		t.Errorf("status %d: %s", status, stderr)
	}

	list, stderr, status := execute(t, env, "keys", "list")
	at := `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`
	want := regexp.MustCompile(`^ID +POLICY +CREATED +REVOKED\nweb +photos +` + at + ` +` + at + `\n\w{12} +photos +` + at + ` +-\n$`)
	if status != 0 || !want.MatchString(list) {
		t.Errorf("status %d: %s\n%s", status, stderr, list)
	}
	text, stderr, status := execute(t, env, "keys", "list", "--format", "json")
	var listed []struct {
		ID, Policy string
		RevokedAt  *string `json:"revoked_at"`
	}
	if err := json.Unmarshal([]byte(text), &listed); err != nil || status != 0 || len(listed) != 2 || listed[0].ID != "web" ||
		listed[0].RevokedAt == nil || listed[1].RevokedAt != nil {
		t.Errorf("status %d: %s %s (%v)", status, stderr, text, err)
	}
	for _, shown := range []string{list, text} {
		if strings.Contains(shown, key[len("upk_web_"):]) || strings.Contains(shown, "hash") {
			t.Errorf("the list shows a secret: %s", shown)
		}
	}
}

func TestNoKeys(t *testing.T) {
	t.Parallel()
	env := map[string]string{"DATABASE_URL": dbtest.URL(t)}
	if text, stderr, status := execute(t, env, "keys", "list", "--format", "json"); status != 0 || text != "[]\n" {
		t.Errorf("status %d: %s%s", status, stderr, text)
	}
}

func TestKeysRefusals(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t)
	env := map[string]string{"UPCALL_DATABASE_URL": url}
	made, _, status := execute(t, env, "keys", "add", "--policy", "photos", "--id", "taken")
	if status != 0 {
		t.Fatal(status)
	}
	policies := clitest.WriteFile(t, "policies.yaml", goodPolicies)
	broken := clitest.WriteFile(t, "policies.yaml", strings.Replace(goodPolicies, "1h", "1y", 1))
	add := func(more ...string) []string { return append([]string{"keys", "add"}, more...) }
	for _, tt := range []struct {
		name   string
		env    map[string]string
		args   []string
		status int
		want   []string // one for each line
	}{
		{"no policy", env, add(), 2, []string{`--policy: "" is not a name for a policy`}},
		{"policy with a space", env, add("--policy", "my photos"), 2, []string{`--policy: "my photos" is not a name for a policy`}},
		{"policy missing from the file", env, add("--policy", "films", "--policies", policies), 2,
			[]string{`--policy: "films" is not in ` + policies + ", which has photos"}},
		{"broken policy file", env, add("--policy", "photos", "--policies", broken), 2, []string{broken + ":7:17: policies.photos.max_expiry: "}},
		{"no policy file", env, add("--policy", "photos", "--policies", "/nowhere/policies.yaml"), 2,
			[]string{"--policies: open /nowhere/policies.yaml: no such file"}},
		{"endless policy file", env, add("--policy", "photos", "--policies", "/dev/zero"), 2, []string{"/dev/zero:1:1: the file is larger than"}},
		{"id in capitals", env, add("--policy", "photos", "--id", "Web"), 2, []string{"--id: id of an API key: \"Web\" contains"}},
		{"id too long", env, add("--policy", "photos", "--id", strings.Repeat("a", 33)), 2,
			[]string{"--id: id of an API key: it has 33 characters"}},
		{"id in use", env, add("--policy", "photos", "--id", "taken"), 2, []string{`--id: there is a key "taken" already`}},
		{"no database", nil, add("--policy", "photos"), 2, []string{"no database: set UPCALL_DATABASE_URL"}},
		{"embedded database", map[string]string{"UPCALL_DATABASE_URL": "embedded"}, add("--policy", "photos"), 2,
			[]string{"embedded is a PostgreSQL within the receiver"}},
		{"database that is not a URL", map[string]string{"UPCALL_DATABASE_URL": "postgres://u:hunter2@:x/"},
			add("--policy", "photos"), 2, []string{"UPCALL_DATABASE_URL: database URL is not valid"}},
		{"database twice", map[string]string{"UPCALL_DATABASE_URL": url, "UPCALL_DATABASE_URL_FILE": policies},
			add("--policy", "photos"), 2, []string{"set one of them only"}},
		{"unreachable database", map[string]string{"UPCALL_DATABASE_URL": "postgres://u:hunter2@127.0.0.1:1/d"},
			add("--policy", "photos"), 1, []string{"127.0.0.1"}},
		{"database without a schema", map[string]string{"UPCALL_DATABASE_URL": dbtest.Empty(t)}, add("--policy", "photos"),
			1, []string{"receiver migrate up"}},
		{"all at once", nil, add("--policy", "", "--id", "_"), 2, []string{"--policy: ", "--id: ", "no database"}},

		{"list in XML", env, []string{"keys", "list", "--format", "xml"}, 2, []string{`--format: "xml" is unknown; use text or json`}},
		{"list without a database", nil, []string{"keys", "list"}, 2, []string{"no database"}},
		{"list without a schema", map[string]string{"UPCALL_DATABASE_URL": dbtest.Empty(t)}, []string{"keys", "list"}, 1,
			[]string{"receiver migrate up"}},

		{"revoke nothing", env, []string{"keys", "revoke"}, 2, []string{"<id>"}},
		{"revoke an unknown key", env, []string{"keys", "revoke", "nobody"}, 2, []string{`ID: there is no key "nobody"; see issuer keys list`}},
		{"revoke an invalid id", env, []string{"keys", "revoke", "a/b"}, 2, []string{"ID: id of an API key"}},
		{"revoke two", env, []string{"keys", "revoke", "taken", "other"}, 2, []string{"unexpected argument other"}},
		{"revoke a whole key", env, []string{"keys", "revoke", strings.TrimSpace(made)}, 2,
			[]string{"ID: that is a whole key; give only its id, taken"}},
		{"revoke without a database", nil, []string{"keys", "revoke", "taken"}, 2, []string{"no database"}},
		{"no command", env, []string{"keys"}, 2, []string{"add"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			stdout, stderr, status := execute(t, tt.env, tt.args...)
			if status != tt.status || stdout != "" {
				t.Errorf("status %d, standard output %q", status, stdout)
			}
			checkLines(t, stderr, tt.want)
			if strings.Contains(stderr, "hunter2") || strings.Contains(stderr, strings.TrimSpace(made)) {
				t.Errorf("a secret is shown: %s", stderr)
			}
		})
	}
	if list, _, _ := execute(t, env, "keys", "list"); strings.Count(list, "\n") != 2 || !strings.Contains(list, "-\n") {
		t.Errorf("something was written or revoked:\n%s", list)
	}
}
