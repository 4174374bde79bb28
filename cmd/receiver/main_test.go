package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/cli"
	"upcall/internal/dbtest"
	"upcall/migrations"
)

func env(pairs ...string) func(string) string {
	m := make(map[string]string)
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return func(name string) string { return m[name] }
}

// lines hands out what is written, line by line.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
	out chan string
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Write(p)
	for {
		line, err := l.buf.ReadString('\n')
		if err != nil {
			l.buf.WriteString(line)
			return len(p), nil
		}
		select {
		case l.out <- line:
		default:
		}
	}
}

func TestServe(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t)
	dir := t.TempDir()
	urlFile, keysFile := filepath.Join(dir, "url"), filepath.Join(dir, "keys")
	for name, content := range map[string]string{urlFile: url + "\n", keysFile: "k1:0123456789abcdef\n"} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	stderr := &lines{out: make(chan string, 100)}
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, []string{"serve", "--listen", "127.0.0.1:0"}, env("UPCALL_LISTEN", "overruled by the flag",
			"UPCALL_ADMIN_LISTEN", "127.0.0.1:0", "UPCALL_DATABASE_URL_FILE", urlFile, "UPCALL_TOKEN_KEYS_FILE", keysFile,
			"UPCALL_BUCKETS", "demo,other"), cli.Stdio{Out: io.Discard, Err: stderr})
	}()
	var serving struct {
		Msg, Listen string
		AdminListen string `json:"admin_listen"`
	}
	for serving.Msg != "serving" { // a slow machine's receiver may have warnings before that
		select {
		case line := <-stderr.out:
			if err := json.Unmarshal([]byte(line), &serving); err != nil {
				t.Fatalf("%v: %s", err, line)
			}
		case err := <-ended:
			t.Fatalf("it did not serve: %v", err)
		}
	}
	eventually := func(args ...string) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; {
			err := run(t.Context(), args, env("UPCALL_ADMIN_LISTEN", serving.AdminListen), cli.Stdio{Out: io.Discard, Err: io.Discard})
			if err == nil {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%v: %v", args, err)
			}
		}
	}
	eventually("healthcheck")
	eventually("healthcheck", "--path", "/readyz", "--admin-listen", serving.AdminListen)
	response, err := http.Post("http://"+serving.Listen+"/oss/callback", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusForbidden {
		t.Errorf("an unsigned callback got %d", response.StatusCode)
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("stop: %v", err)
	}
	if err := run(t.Context(), []string{"healthcheck", "--admin-listen", serving.AdminListen}, env(), cli.Stdio{Out: io.Discard, Err: io.Discard}); err == nil {
		t.Error("a stopped receiver is healthy")
	}
}

// TestEmbedded: a private PostgreSQL is started, migrated, and gone at the end.
func TestEmbedded(t *testing.T) {
	t.Parallel()
	dir := dbtest.Dir(t)
	var out bytes.Buffer
	settings := env("UPCALL_DATABASE_URL", "embedded", "UPCALL_DATA_DIR", filepath.Join(dir, "data"))
	if err := run(t.Context(), []string{"migrate", "up"}, settings, cli.Stdio{Out: &out, Err: io.Discard}); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(out.String(), "schema is at version ") {
		t.Errorf("output: %s", &out)
	}
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	settings := env("DATABASE_URL", dbtest.Empty(t))
	output := func(args ...string) string {
		var out bytes.Buffer
		if err := run(t.Context(), append([]string{"migrate"}, args...), settings, cli.Stdio{Out: &out, Err: io.Discard}); err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		return out.String()
	}
	if got := output("status"); !strings.Contains(got, "schema is at version 0 of") || !strings.Contains(got, "pending: 0001_upload_events") {
		t.Errorf("status of an empty database: %s", got)
	}
	err := run(t.Context(), []string{"serve", "--token", "off", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"}, settings, cli.Stdio{Out: io.Discard, Err: io.Discard})
	if !errors.Is(err, migrations.ErrTooOld) || !strings.Contains(err.Error(), "receiver migrate up") {
		t.Errorf("serve on an empty database: %v", err)
	}
	if diff := cmp.Diff(output("up"), output("up")); diff != "" {
		t.Errorf("a second up says something else: %s", diff)
	}
	if got := output("status"); strings.Contains(got, "pending") {
		t.Errorf("status after up: %s", got)
	}
	if got := output("down", "--steps", "1"); !strings.Contains(got, "pending") {
		t.Errorf("down: %s", got)
	}
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	const secret = "hunter2"
	for name, tt := range map[string]struct {
		args []string
		env  func(string) string
		want []string // a line each, in part
	}{
		"nothing set": {[]string{"serve"}, env(), []string{"set UPCALL_DATABASE_URL", "set UPCALL_TOKEN_KEYS"}},
		"everything wrong": {[]string{"serve"}, env("UPCALL_TOKEN_KEYS", secret, "UPCALL_TOKEN", "maybe", "UPCALL_FIELDS", "x",
			"UPCALL_TRUST_KEY_URLS", "key.pem", "UPCALL_PUBLIC_URL", "/x", "UPCALL_CALLBACK_PATH", "x"),
			[]string{"set UPCALL_DATABASE_URL", "UPCALL_TOKEN_KEYS: key 1", "UPCALL_FIELDS", "callback path", "public URL", "token policy", "key URL"}},
		"both secret and file":   {[]string{"migrate", "up"}, env("UPCALL_DATABASE_URL", "x", "UPCALL_DATABASE_URL_FILE", "y"), []string{"set one of them only"}},
		"file that is not there": {[]string{"migrate", "up"}, env("UPCALL_DATABASE_URL_FILE", "/nowhere"), []string{"/nowhere"}},
		"no command":             {nil, env(), []string{"expected one of"}},
		"unknown flag":           {[]string{"serve", "--nope"}, env(), []string{"unknown flag --nope"}},
		"down without steps":     {[]string{"migrate", "down"}, env(), []string{"--steps"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := run(t.Context(), tt.args, tt.env, cli.Stdio{Out: io.Discard, Err: io.Discard})
			if !errors.Is(err, cli.ErrUsage) {
				t.Fatalf("got %v, want a usage error", err)
			}
			got := strings.Split(err.Error(), "\n")
			if len(got) != len(tt.want) {
				t.Errorf("got %d lines, want %d:\n%v", len(got), len(tt.want), err)
			}
			for i, want := range tt.want {
				if i < len(got) && !strings.Contains(got[i], want) {
					t.Errorf("line %d is %q, want it to hold %q", i+1, got[i], want)
				}
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the error holds the secret: %v", err)
			}
		})
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, tt := range map[string]struct {
		args []string
		env  func(string) string
		want string
	}{
		"listener taken":  {[]string{"serve", "--token", "off", "--listen", taken.Addr().String()}, env("UPCALL_DATABASE_URL", "postgres://x"), "listen for callbacks"},
		"database away":   {[]string{"migrate", "up"}, env("UPCALL_DATABASE_URL", "postgres://u:hunter2@127.0.0.1:1/x"), "connect to database x at 127.0.0.1:1"},
		"not a URL":       {[]string{"migrate", "up"}, env("UPCALL_DATABASE_URL", "postgres://u:hunter2@:x/y"), "postgres://user:password@host"},
		"nobody to check": {[]string{"healthcheck", "--admin-listen", "127.0.0.1:1"}, env(), "127.0.0.1:1"},
	} {
		err := run(t.Context(), tt.args, tt.env, cli.Stdio{Out: io.Discard, Err: io.Discard})
		if err == nil || errors.Is(err, cli.ErrUsage) || !strings.Contains(err.Error(), tt.want) ||
			strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v, want one line that holds %q", name, err, tt.want)
		}
	}
}

func TestHelpShowsNoSecret(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := run(t.Context(), []string{"serve", "--help"}, func(string) string { return "hunter2" }, cli.Stdio{Out: &out, Err: io.Discard}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "UPCALL_LISTEN") || strings.Contains(out.String(), "hunter2") {
		t.Errorf("help:\n%s", &out)
	}
}
