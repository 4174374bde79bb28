package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"upcall/internal/dbtest"
	"upcall/internal/ossemu"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/proc"
	"upcall/internal/testing/servetest"
	"upcall/internal/testing/wait"
)

// shim stands for docker compose: the containers' programs run on this machine. It knows the
// commands of docs/testing.md and no other.
const shim = `#!/bin/sh
set -eu
test "$COMPOSE_FILE" = docker-compose.yml:compose.test.yaml
case "$*" in
"compose up --build --wait" | "compose down --volumes") ;;
"compose exec -T receiver receiver "*) shift 4; exec "$@" ;;
"compose run --rm -T issuer "*)
	shift 4
	export OSS_REGION=cn-hangzhou OSS_ENDPOINT="$EMULATOR" OSS_ACCESS_KEY_ID=ossemu OSS_ACCESS_KEY_SECRET=ossemu-secret
	export UPCALL_CALLBACK_URL=http://receiver:8080/oss/callback
	exec "$@" --path-style ;;
"compose logs --no-log-prefix app") cat app.log ;;
*) echo "docs/testing.md has a command that the test does not know: $*" >&2; exit 64 ;;
esac
`

// A testingStack is what docker compose starts for docs/testing.md.
type testingStack struct {
	blocks          map[string][]string // of the page, by language
	dir             string
	env             []string // of programs with the database and the token keys
	emulator, admin string   // URL, address
	public          string   // address of the receiver
	attempts        *atomic.Int32
}

// startTestingStack starts the receiver with the files of docs/testing.md, the emulator, and an application whose
// first answer is a failure.
func startTestingStack(t *testing.T) *testingStack {
	t.Helper()
	text, err := os.ReadFile("../../docs/testing.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := make(map[string][]string)
	for _, block := range regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
		blocks[block[1]] = append(blocks[block[1]], block[2])
	}
	if len(blocks["sh"]) != 3 || len(blocks["yaml"]) != 3 {
		t.Fatalf("the page has %d and %d blocks", len(blocks["sh"]), len(blocks["yaml"]))
	}
	var override struct {
		Services struct {
			Receiver struct{ Environment map[string]string }
		}
	}
	if err := yaml.Unmarshal([]byte(blocks["yaml"][0]), &override); err != nil {
		t.Fatal(err)
	}
	if override.Services.Receiver.Environment["UPCALL_HOOKS_SCHEDULE"] == "" {
		t.Fatal("the override has no schedule")
	}

	dir, databaseURL := t.TempDir(), dbtest.URL(t)
	write := func(name, content string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	run := func(log *os.File, env []string, args ...string) {
		t.Helper()
		program := exec.CommandContext(t.Context(), filepath.Join(programs(t), "receiver"), args...)
		program.Env, program.Stdout, program.Stderr = append(env, proc.QuickExit), log, log
		if err := program.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = program.Process.Kill(); _ = program.Wait() }) // which says so
	}
	open := func(name string) *os.File {
		t.Helper()
		file, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { file.Close() })
		return file
	}
	free := func() string {
		listener := servetest.Listen(t)
		defer listener.Close()
		return listener.Addr().String()
	}
	const secret = "whsec_bG9jYWwtc3RhY2stb25seS0wMTIzNDU2Nzg5YWJjZGVm"
	secretFile := write("hook_secret", secret, 0o600)

	// The application, and before it what makes the first attempt fail.
	app := free()
	run(open("app.log"), nil, "hooks", "listen", "--listen", app, "--secret-file", secretFile)
	attempts := new(atomic.Int32)
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: app})
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if attempts.Add(1) == 1 {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)

	hooks := strings.NewReplacer("http://app:8090/", front.URL+"/", "/run/secrets/hook_secret", secretFile).Replace(blocks["yaml"][1])
	public, admin := free(), free()
	emulator := ossfake.Start(t, func(c *ossemu.Config) {
		c.AccessKeyID, c.AccessKeySecret = "ossemu", "ossemu-secret"
		c.CallbackDial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if addr != "receiver:8080" {
				return nil, fmt.Errorf("calls %s", addr)
			}
			return new(net.Dialer).DialContext(ctx, network, public)
		}
	})
	env := []string{"UPCALL_DATABASE_URL=" + databaseURL, "UPCALL_TOKEN_KEYS=local:local-stack-only-0123456789abcdef"}
	serving := append(env, "UPCALL_LISTEN="+public, "UPCALL_ADMIN_LISTEN="+admin, "UPCALL_HOOKS_FILE="+write("hooks.test.yaml", hooks, 0o600),
		"UPCALL_TRUST_KEY_URLS="+emulator+ossemu.PublicKeyPath, "UPCALL_HOOKS_ALLOW_HTTP=true", "UPCALL_HOOKS_ALLOW_CIDRS=127.0.0.0/8")
	for name, value := range override.Services.Receiver.Environment {
		serving = append(serving, name+"="+value)
	}
	run(open("receiver.log"), serving, "serve")
	wait.Until(t, "the receiver is ready", func() bool {
		response, err := http.Get("http://" + admin + "/readyz")
		if err == nil {
			response.Body.Close()
		}
		return err == nil && response.StatusCode == http.StatusOK
	})

	write("docker", shim, 0o700)
	return &testingStack{blocks, dir, env, emulator, admin, public, attempts}
}

// TestTestingPage runs what docs/testing.md shows, with its files: the whole loop, offline, while
// the application fails at first. It says how long that takes.
func TestTestingPage(t *testing.T) {
	t.Parallel()
	stack := startTestingStack(t)
	blocks, dir, env, emulator, admin := stack.blocks, stack.dir, stack.env, stack.emulator, stack.admin
	script := blocks["sh"][0] + "cat > test.sh <<'EOF'\n" + blocks["sh"][1] + "EOF\nsh test.sh\n" + blocks["sh"][2]
	shell := exec.CommandContext(t.Context(), "sh", "-euc", script)
	shell.Dir = dir
	shell.Env = append(env, "PATH="+dir+":"+programs(t)+":"+os.Getenv("PATH"), "EMULATOR="+emulator, "RECEIVER=http://"+admin, proc.QuickExit)
	began := time.Now()
	out, err := shell.CombinedOutput()
	if err != nil || !strings.HasSuffix(string(out), "\npassed\n") {
		log, _ := os.ReadFile(filepath.Join(dir, "app.log"))
		t.Fatalf("%v: %s\nthe application printed %s", err, out, log)
	}
	t.Logf("took %v", time.Since(began).Round(time.Millisecond))
	if !strings.Contains(string(out), `"callbacks":2,"multipart_uploads":0,"objects":1`) || !strings.Contains(string(out), `{"idle":true}`) {
		t.Errorf("printed %s", out)
	}
	if attempts := stack.attempts; attempts.Load() != 2 {
		t.Errorf("%d attempts, and the first failed", attempts.Load())
	}
}

// TestTestingOverride checks that the page's file changes what docker-compose.yml has: compose
// would take a misspelt service or configuration for a new one.
func TestTestingOverride(t *testing.T) {
	t.Parallel()
	type project struct {
		Services map[string]struct {
			Environment map[string]string
			Configs     []struct{ Source, Target string }
		}
		Configs map[string]struct{ File string }
	}
	var base, override project
	text, err := os.ReadFile("../../docs/testing.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$").FindSubmatch(text)
	if err := yaml.Unmarshal(block[1], &override); err != nil {
		t.Fatal(err)
	}
	if text, err = os.ReadFile("../../docker-compose.yml"); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &base); err != nil {
		t.Fatal(err)
	}
	for name := range override.Services {
		if _, ok := base.Services[name]; !ok {
			t.Errorf("docker-compose.yml has no service %q", name)
		}
	}
	for name := range override.Configs {
		if _, ok := base.Configs[name]; !ok {
			t.Errorf("docker-compose.yml has no configuration %q", name)
		}
	}
	receiver := base.Services["receiver"]
	changed := override.Services["receiver"].Environment
	if changed["UPCALL_HOOKS_SCHEDULE"] != "100ms,1s" || override.Configs["hooks"].File != "hooks.test.yaml" ||
		len(receiver.Configs) != 1 || receiver.Configs[0].Source != "hooks" ||
		receiver.Configs[0].Target != receiver.Environment["UPCALL_HOOKS_FILE"] {
		t.Errorf("got %+v and %+v", override, receiver)
	}
}
