package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/testing/clitest"
	"upcall/internal/testing/servetest"
)

// serveEnv returns an environment in which issuer serve runs.
func serveEnv(t *testing.T) clitest.Env {
	t.Helper()
	env := goodEnv()
	maps.Copy(env, map[string]string{
		"UPCALL_DATABASE_URL": dbtest.URL(t), "UPCALL_POLICIES": clitest.WriteFile(t, "policies.yaml", goodPolicies),
		"UPCALL_API_LISTEN": "127.0.0.1:0", "UPCALL_API_ADMIN_LISTEN": "127.0.0.1:0",
	})
	return env
}

// startServe runs issuer serve and returns the URLs of its listeners.
func startServe(t *testing.T, env clitest.Env) (api, admin string, running *clitest.Running) {
	t.Helper()
	running = program.Start(t, env, "serve")
	var serving struct {
		API   string `json:"api_listen"`
		Admin string `json:"admin_listen"`
	}
	running.Line(t, func(line string) bool { return json.Unmarshal([]byte(line), &serving) == nil && serving.API != "" })
	return "http://" + serving.API, "http://" + serving.Admin, running
}

func post(t *testing.T, url, key, body string) (status int, answer string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+key)
	r.Header.Set("Content-Type", "application/json")
	return servetest.Do(t, r)
}

const wanted = `{"key":"photos/web/cat.jpg","content_type":"image/jpeg","size":7,"vars":{"uid":"42"}}`

// TestServe issues an upload with a new key and checks its row.
func TestServe(t *testing.T) {
	t.Parallel()
	env := serveEnv(t)
	made, stderr, status := execute(t, env, "keys", "add", "--policy", "photos", "--id", "web")
	if status != 0 {
		t.Fatal(stderr)
	}
	api, admin, running := startServe(t, env)
	code, answer := post(t, api+"/v1/uploads", strings.TrimSpace(made), wanted)
	var issued struct{ Status, URL string }
	if err := json.Unmarshal([]byte(answer), &issued); err != nil || code != http.StatusCreated || issued.Status != "issued" ||
		!strings.HasPrefix(issued.URL, "https://demo.oss-cn-hangzhou.aliyuncs.com/photos/web/cat.jpg?") {
		t.Fatalf("%d %s", code, answer)
	}
	pool, err := eventstore.Open(t.Context(), env["UPCALL_DATABASE_URL"])
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	var rows int
	const query = "SELECT count(*) FROM upcall.issued_uploads WHERE api_key_id = 'web' AND object_key = 'photos/web/cat.jpg'"
	if err := pool.QueryRow(t.Context(), query).Scan(&rows); err != nil || rows != 1 {
		t.Errorf("%d rows (%v)", rows, err)
	}
	for url, want := range map[string]int{
		admin + "/livez": 200, admin + "/readyz": 200, admin + "/metrics": 200, api + "/openapi.yaml": 200,
		api + "/": 404, api + "/metrics": 404,
	} {
		if code, answer := servetest.Get(t, url); code != want {
			t.Errorf("%s: %d %s", url, code, answer)
		}
	}
	if err := running.Stop(); err != nil {
		t.Errorf("after Stop: %v", err)
	}
}

// TestServeReload changes the policy file while the service runs. A file with a mistake changes nothing.
func TestServeReload(t *testing.T) {
	t.Parallel()
	env := serveEnv(t)
	made, stderr, status := execute(t, env, "keys", "add", "--policy", "photos", "--id", "web")
	if status != 0 {
		t.Fatal(stderr)
	}
	api, _, running := startServe(t, env)
	stricter := strings.ReplaceAll(goodPolicies, "content_types: [image/*]", "content_types: [video/*]")
	for _, step := range []struct {
		policies, says string
		want           int
	}{
		{goodPolicies, "policies reloaded", http.StatusCreated},
		{stricter, "policies reloaded", http.StatusForbidden},
		{goodPolicies + "nope: 1\n", "policies were not reloaded; those from before apply", http.StatusForbidden},
		{strings.ReplaceAll(goodPolicies, "photos:", "other:"), "policies reloaded", http.StatusForbidden},
		{goodPolicies, "policies reloaded", http.StatusCreated},
	} {
		if err := os.WriteFile(env["UPCALL_POLICIES"], []byte(step.policies), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		line := running.Line(t, func(line string) bool { return strings.Contains(line, "reloaded") })
		if !strings.Contains(line, `"msg":"`+step.says+`"`) {
			t.Errorf("%s: %s", step.policies, line)
		}
		if code, answer := post(t, api+"/v1/uploads", strings.TrimSpace(made), wanted); code != step.want {
			t.Errorf("%s: %d %s", step.policies, code, answer)
		}
	}
	if err := running.Stop(); err != nil {
		t.Errorf("after Stop: %v", err)
	}
}

// TestServeWithoutDatabase checks that an issuer starts before its database, is not ready, and
// answers 503.
func TestServeWithoutDatabase(t *testing.T) {
	t.Parallel()
	env := serveEnv(t)
	made, stderr, status := execute(t, env, "keys", "add", "--policy", "photos", "--id", "web")
	if status != 0 {
		t.Fatal(stderr)
	}
	env["UPCALL_DATABASE_URL"] = "postgres://upcall:hunter2@127.0.0.1:1/upcall"
	api, admin, running := startServe(t, env)
	if code, answer := post(t, api+"/v1/uploads", strings.TrimSpace(made), wanted); code != http.StatusServiceUnavailable ||
		strings.Contains(answer, "127.0.0.1") {
		t.Errorf("%d %s", code, answer)
	}
	if code, answer := servetest.Get(t, admin+"/readyz"); code != http.StatusServiceUnavailable || strings.Contains(answer, "hunter2") {
		t.Errorf("%d %s", code, answer)
	}
	if code, _ := servetest.Get(t, admin+"/livez"); code != http.StatusOK {
		t.Errorf("livez: %d", code)
	}
	if err := running.Stop(); err != nil {
		t.Errorf("after Stop: %v", err)
	}
}

func TestServeRefusals(t *testing.T) {
	t.Parallel()
	taken := servetest.Listen(t)
	private := clitest.WriteFile(t, "policies.yaml", strings.Replace(goodPolicies, "https://uploads.example.com", "http://10.0.0.1", 1))
	broken := clitest.WriteFile(t, "policies.yaml", strings.NewReplacer("20MiB", "20MB", "[uid]", "[UID]").Replace(goodPolicies))
	good := serveEnv(t)
	for _, tt := range []struct {
		name   string
		env    map[string]string // changes
		args   []string
		status int
		want   []string // one for each line
	}{
		{"no policy file", map[string]string{"UPCALL_POLICIES": ""}, nil, 2,
			[]string{"--policies: no policy file is given; issuer serve --help shows one"}},
		{"missing policy file", nil, []string{"--policies", "/nowhere"}, 2, []string{"--policies: open /nowhere: no such file or directory"}},
		{"policy file that is a directory", nil, []string{"--policies", t.TempDir()}, 2, []string{"is a directory"}},
		{"endless policy file", nil, []string{"--policies", "/dev/zero"}, 2, []string{"/dev/zero:1:1: the file is larger than 1048576 bytes"}},
		{"two mistakes in the policy file", nil, []string{"--policies", broken}, 2,
			[]string{broken + ":6:15: policies.photos.max_size: ", broken + ":9:21: policies.photos.required_vars[0]: "}},
		{"callback to a private address", nil, []string{"--policies", private}, 2,
			[]string{private + ":8:21: policies.photos.callback_urls[0]: "}},
		{"no database", map[string]string{"UPCALL_DATABASE_URL": ""}, nil, 2, []string{"no database: set UPCALL_DATABASE_URL"}},
		{"embedded database", nil, []string{"--database-url", "embedded"}, 2, []string{"embedded is a PostgreSQL within the receiver"}},
		{"database that is not a URL", nil, []string{"--database-url", "hunter2"}, 2, []string{"UPCALL_DATABASE_URL: database URL is not valid"}},
		{"database without a schema", map[string]string{"UPCALL_DATABASE_URL": dbtest.Empty(t)}, nil, 1, []string{"receiver migrate up"}},
		{"no token keys", map[string]string{"UPCALL_TOKEN_KEYS": ""}, nil, 2, []string{"UPCALL_TOKEN_KEYS: is not set"}},
		{"bad token keys", map[string]string{"UPCALL_TOKEN_KEYS": "hunter2"}, nil, 2, []string{"UPCALL_TOKEN_KEYS: "}},
		{"no region", map[string]string{"OSS_REGION": ""}, nil, 2, []string{"region"}},
		{"no credentials", map[string]string{"OSS_ACCESS_KEY_SECRET": ""}, nil, 2, []string{"OSS_ACCESS_KEY_SECRET"}},
		{"rate is not a number", nil, []string{"--api-rate", "fast"}, 2, []string{`--api-rate: "fast" is not a number of requests per second`}},
		{"rate is zero", nil, []string{"--api-rate", "0"}, 2, []string{"--api-rate: "}},
		{"rate is negative", nil, []string{"--api-rate=-1"}, 2, []string{"--api-rate: "}},
		{"rate is NaN", nil, []string{"--api-rate", "NaN"}, 2, []string{"--api-rate: "}},
		{"rate is infinite", nil, []string{"--api-rate", "Inf"}, 2, []string{"--api-rate: "}},
		{"rate is too high", map[string]string{"UPCALL_API_RATE": "1000001"}, nil, 2, []string{"--api-rate: "}},
		{"burst is not a number", nil, []string{"--api-burst", "1.5"}, 2,
			[]string{`--api-burst: "1.5" is not a number of requests; write 200, say`}},
		{"burst is zero", map[string]string{"UPCALL_API_BURST": "0"}, nil, 2, []string{"--api-burst: "}},
		{"burst is too high", nil, []string{"--api-burst", "1000001"}, 2, []string{"--api-burst: "}},
		{"proxy is a name", map[string]string{"UPCALL_TRUSTED_PROXIES": "10.0.0.0/8,proxy"}, nil, 2,
			[]string{`UPCALL_TRUSTED_PROXIES: "proxy" is not a network such as 10.0.0.0/8, or an address`}},
		{"listener is not an address", nil, []string{"--api-listen", "nonsense"}, 2,
			[]string{`--api-listen: "nonsense" is not host:port; write 127.0.0.1:8082, or :8082 for all addresses`}},
		{"listener without a port", nil, []string{"--api-listen", "127.0.0.1:"}, 2, []string{"--api-listen: "}},
		{"listener with a port over 65535", map[string]string{"UPCALL_API_LISTEN": "127.0.0.1:65536"}, nil, 2, []string{"--api-listen: "}},
		{"listener that is a URL", map[string]string{"UPCALL_API_ADMIN_LISTEN": "http://127.0.0.1:8083"}, nil, 2,
			[]string{"--api-admin-listen: "}},
		{"one listener for both", nil, []string{"--api-listen", "127.0.0.1:9", "--api-admin-listen", "127.0.0.1:9"}, 2,
			[]string{"--api-admin-listen: "}},
		{"listener is taken", nil, []string{"--api-listen", taken.Addr().String()}, 1, []string{"listen for applications: "}},
		{"admin listener is taken", nil, []string{"--api-admin-listen", taken.Addr().String()}, 1, []string{"listen for health and metrics: "}},
		{"unknown flag", nil, []string{"--nonsense"}, 2, []string{"unknown flag --nonsense"}},
		{"argument", nil, []string{"nonsense"}, 2, []string{"unexpected argument nonsense"}},
		{"page is not a boolean", map[string]string{"UPCALL_PAGE": "perhaps"}, nil, 2, []string{"--page"}},
		{"all at once", map[string]string{"UPCALL_POLICIES": "", "UPCALL_DATABASE_URL": "", "UPCALL_TOKEN_KEYS": "", "OSS_REGION": "", "UPCALL_API_RATE": "x", "UPCALL_API_BURST": "x"}, nil, 2,
			[]string{"region", "UPCALL_TOKEN_KEYS: ", "no database", "--policies: ", "--api-rate: ", "--api-burst: "}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env := maps.Clone(good)
			maps.Copy(env, tt.env)
			stdout, stderr, status := execute(t, env, append([]string{"serve"}, tt.args...)...)
			if status != tt.status || stdout != "" {
				t.Errorf("status %d, standard output %q", status, stdout)
			}
			if strings.Contains(stderr, "hunter") {
				t.Errorf("a secret is shown: %s", stderr)
			}
			checkLines(t, withoutLog(stderr), tt.want)
		})
	}
}

func TestServeHelp(t *testing.T) {
	t.Parallel()
	help, _, _ := execute(t, goodEnv(), "serve", "--help")
	if !strings.Contains(help, `key_templates: ["made/${apikey.id}/${date}/${uuid}-${filename}"]`) {
		t.Errorf("the help changes the example of a policy file:\n%s", help)
	}
	if fmt.Sprint(strings.Count(help, "127.0.0.1:808")) != "2" {
		t.Errorf("the help does not show the listeners:\n%s", help)
	}
}

// withoutLog removes the lines of the log, that the program starts and stops.
func withoutLog(stderr string) string {
	var others strings.Builder
	for line := range strings.Lines(stderr) {
		if !strings.HasPrefix(line, "{") {
			others.WriteString(line)
		}
	}
	return others.String()
}
