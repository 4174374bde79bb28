package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/cli"
	"upcall/internal/dbtest"
	"upcall/internal/testing/clitest"
	"upcall/internal/testing/servetest"
	"upcall/internal/testing/wait"
	"upcall/migrations"
)

var program = clitest.Program(run)

func TestServe(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t)
	urlFile, keysFile := clitest.WriteFile(t, "url", url+"\n"), clitest.WriteFile(t, "keys", "k1:0123456789abcdef\n")
	running := program.Start(t, clitest.Env{"UPCALL_LISTEN": "overruled by the flag",
		"UPCALL_ADMIN_LISTEN": "127.0.0.1:0", "UPCALL_DATABASE_URL_FILE": urlFile, "UPCALL_TOKEN_KEYS_FILE": keysFile,
		"UPCALL_BUCKETS": "demo,other"}, "serve", "--listen", "127.0.0.1:0")
	var serving struct {
		Msg, Listen string
		AdminListen string `json:"admin_listen"`
	}
	running.Line(t, func(line string) bool { // on a slow machine, warnings may come first
		if err := json.Unmarshal([]byte(line), &serving); err != nil {
			t.Errorf("%v: %s", err, line)
		}
		return serving.Msg == "serving"
	})
	for _, args := range [][]string{{"healthcheck"}, {"healthcheck", "--path", "/readyz", "--admin-listen", serving.AdminListen}} {
		wait.Until(t, strings.Join(args, " "), func() bool {
			_, _, err := program.Execute(t, clitest.Env{"UPCALL_ADMIN_LISTEN": serving.AdminListen}, args...)
			return err == nil
		})
	}
	response, err := http.Post("http://"+serving.Listen+"/oss/callback", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusForbidden {
		t.Errorf("an unsigned callback got %d", response.StatusCode)
	}
	if err := running.Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	err = program.Error(t, nil, "healthcheck", "--admin-listen", serving.AdminListen)
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a stopped receiver is healthy: %v", err)
	}
}

// TestEmbedded migrates a private PostgreSQL.
func TestEmbedded(t *testing.T) {
	t.Parallel()
	dir := dbtest.Dir(t)
	settings := clitest.Env{"UPCALL_DATABASE_URL": "embedded", "UPCALL_DATA_DIR": filepath.Join(dir, "data")}
	if got := program.Output(t, settings, "migrate", "up"); !strings.HasPrefix(got, "schema is at version ") {
		t.Errorf("output: %s", got)
	}
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	settings := clitest.Env{"DATABASE_URL": dbtest.Empty(t)}
	output := func(args ...string) string {
		return program.Output(t, settings, append([]string{"migrate"}, args...)...)
	}
	if got := output("status"); !strings.Contains(got, "schema is at version 0 of") ||
		!strings.Contains(got, "pending: 0001_upload_events") {
		t.Errorf("status of an empty database: %s", got)
	}
	err := program.Error(t, settings, "serve", "--token", "off", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")
	if !errors.Is(err, migrations.ErrTooOld) || !strings.Contains(err.Error(), "receiver migrate up") {
		t.Errorf("serve on an empty database: %v", err)
	}
	if err := program.Error(t, settings, "maintain"); !errors.Is(err, migrations.ErrTooOld) {
		t.Errorf("maintain on an empty database: %v", err)
	}
	if diff := cmp.Diff(output("up"), output("up")); diff != "" {
		t.Errorf("a second up has different output: %s", diff)
	}
	if got := output("status"); strings.Contains(got, "pending") {
		t.Errorf("status after up: %s", got)
	}
	if got := output("down", "--steps", "1", "--yes"); !strings.Contains(got, "pending") {
		t.Errorf("down: %s", got)
	}
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	const secret = "hunter2"
	taken := servetest.Listen(t)
	for name, tt := range map[string]struct {
		args []string
		env  clitest.Env
		want []string // part of each line
	}{
		"nothing set": {[]string{"serve"}, nil, []string{"set UPCALL_DATABASE_URL", "set UPCALL_TOKEN_KEYS"}},
		"everything wrong": {[]string{"serve"}, clitest.Env{"UPCALL_TOKEN_KEYS": secret, "UPCALL_TOKEN": "maybe", "UPCALL_FIELDS": "x",
			"UPCALL_TRUST_KEY_URLS": "key.pem", "UPCALL_TRUSTED_PROXIES": "10.0.0.0/8, proxy", "UPCALL_PUBLIC_URL": "/x", "UPCALL_CALLBACK_PATH": "x"},
			[]string{"set UPCALL_DATABASE_URL", "UPCALL_TOKEN_KEYS: key 1", "UPCALL_FIELDS", `UPCALL_TRUSTED_PROXIES: "proxy"`, "callback path", "public URL",
				"token policy", "key URL"}},
		"both secret and file": {[]string{"migrate", "up"},
			clitest.Env{"UPCALL_DATABASE_URL": "x", "UPCALL_DATABASE_URL_FILE": "y"}, []string{"set one of them only"}},
		"missing file": {[]string{"migrate", "up"}, clitest.Env{"UPCALL_DATABASE_URL_FILE": "/nowhere"}, []string{"/nowhere"}},
		"impossible buckets": {[]string{"serve", "--token", "off", "--buckets", "demo,My_Bucket,, b c ,ab-,ab"},
			clitest.Env{"UPCALL_DATABASE_URL": "postgres://x"},
			[]string{`UPCALL_BUCKETS: bucket: "My_Bucket" holds`, "UPCALL_BUCKETS: bucket: is empty", `"b c" holds`, `"ab-" starts`, `"ab" has 2`}},
		"token keys that can be guessed": {[]string{"serve"}, clitest.Env{"UPCALL_DATABASE_URL": "postgres://x",
			"UPCALL_TOKEN_KEYS": "k1:" + secret + ",k2:0123456789abcdef,k3:" + strings.Repeat("ab", 20)},
			[]string{"UPCALL_TOKEN_KEYS: the secret of key k1 can be guessed", "key k3 can be guessed"}},
		"variables of no program, and of another": {[]string{"serve"}, clitest.Env{"UPCALL_BUCKET": "demo", "UPCALL_RETENTON": "400d"},
			[]string{"set UPCALL_BUCKETS", "did you mean UPCALL_RETENTION?", "set UPCALL_DATABASE_URL", "set UPCALL_TOKEN_KEYS"}},
		"a variable of no program, elsewhere": {[]string{"migrate", "up"}, clitest.Env{"UPCALL_DATABASE_URI": "x"},
			[]string{"did you mean UPCALL_DATABASE_URL?"}},
		"numbers below what they can be": {[]string{"serve", "--token", "off", "--max-events-per-upload=-5"}, clitest.Env{
			"UPCALL_DATABASE_URL": "postgres://x", "UPCALL_MAX_REFUSALS": "-1", "UPCALL_SPOOL_MAX_BYTES": "0", "UPCALL_SPOOL_MIN_FREE_BYTES": "-1"},
			[]string{"UPCALL_MAX_EVENTS_PER_UPLOAD: -5 is less than 0; give 0", "UPCALL_MAX_REFUSALS",
				"UPCALL_SPOOL_MAX_BYTES: 0 is less than 1048576", "UPCALL_SPOOL_MIN_FREE_BYTES"}},
		"a directory of captures that is none": {[]string{"serve", "--token", "off", "--capture-refused", "/dev/null"}, clitest.Env{
			"UPCALL_DATABASE_URL": "postgres://x"}, []string{"UPCALL_CAPTURE_REFUSED: make directory of captures: mkdir /dev/null"}},
		"nothing to hand over": {[]string{"maintain"},
			clitest.Env{"UPCALL_DATABASE_URL": "postgres://x", "UPCALL_RETENTION_EXPORT": "/data"},
			[]string{"UPCALL_RETENTION_EXPORT: events never expire, so none are handed over; set UPCALL_RETENTION"}},
		"handed over to nowhere": {[]string{"maintain", "--retention", "3d", "--retention-export", "s3://b/p"},
			clitest.Env{"UPCALL_DATABASE_URL": "postgres://x"}, []string{"UPCALL_RETENTION: ",
				`UPCALL_RETENTION_EXPORT: "s3://b/p" is of a scheme that is unknown; write oss://BUCKET/PREFIX`}},
		"handed over to a file": {[]string{"serve", "--token", "off", "--retention", "400d", "--retention-export", "/data/history.parquet"},
			clitest.Env{"UPCALL_DATABASE_URL": "postgres://x"}, []string{"UPCALL_RETENTION_EXPORT: months are handed over to a directory"}},
		"handed over to a bucket without access": {[]string{"serve", "--token", "off", "--retention", "400d", "--retention-export",
			"oss://B_/a//b"}, clitest.Env{"UPCALL_DATABASE_URL": "postgres://x"}, []string{`UPCALL_RETENTION_EXPORT: bucket: "B_" holds`,
			"region: is empty", "access key id: is not set", "access key secret: is not set"}},
		"a number below what it can be, elsewhere": {[]string{"maintain"}, clitest.Env{"UPCALL_DATABASE_URL": "postgres://x",
			"UPCALL_MAX_REFUSALS": "-1"}, []string{"UPCALL_MAX_REFUSALS: -1 is less than 0; give 0 to keep none"}},
		"notifications": {[]string{"serve", "--token", "off", "--notify-path", "/oss/callback", "--notify-topics", "oss-events,1/a,1/a"},
			clitest.Env{"UPCALL_DATABASE_URL": "postgres://x", "UPCALL_NOTIFY_TOKEN": "guess", "UPCALL_NOTIFY_TOKENS": "x"},
			[]string{"did you mean UPCALL_NOTIFY_TOKEN?", `UPCALL_NOTIFY_TOPICS: "oss-events" does not begin with the number of the account`,
				"UPCALL_NOTIFY_TOPICS: 1/a is there twice", `UPCALL_NOTIFY_PATH: "/oss/callback" is the path of callbacks`,
				"UPCALL_NOTIFY_TOKEN: the token can be guessed"}},
		"both tokens of notifications": {[]string{"serve", "--token", "off"}, clitest.Env{"UPCALL_DATABASE_URL": "postgres://x",
			"UPCALL_NOTIFY_TOKEN": "x", "UPCALL_NOTIFY_TOKEN_FILE": "y"}, []string{"UPCALL_NOTIFY_TOKEN_FILE: set one of them only"}},
		"no command":         {nil, nil, []string{"expected one of"}},
		"unknown flag":       {[]string{"serve", "--nope"}, nil, []string{"unknown flag --nope; see receiver serve --help"}},
		"down without --yes": {[]string{"migrate", "down", "--steps", "1"}, clitest.Env{"UPCALL_DATABASE_URL": dbtest.URL(t)}, []string{"give --yes"}},
		"down without steps": {[]string{"migrate", "down"}, nil, []string{"--steps"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := clitest.Env{"UPCALL_LISTEN": taken.Addr().String()} // so that a receiver that finds no mistake ends
			maps.Copy(env, tt.env)
			err := program.Error(t, env, tt.args...)
			if !errors.Is(err, cli.ErrUsage) {
				t.Fatalf("got %v, want a usage error", err)
			}
			got := strings.Split(err.Error(), "\n")
			if len(got) != len(tt.want) {
				t.Errorf("got %d lines, want %d:\n%v", len(got), len(tt.want), err)
			}
			for i, want := range tt.want {
				if i < len(got) && !strings.Contains(got[i], want) {
					t.Errorf("line %d is %q, want %q in it", i+1, got[i], want)
				}
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the error shows the secret: %v", err)
			}
		})
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	taken := servetest.Listen(t)
	for name, tt := range map[string]struct {
		args []string
		env  clitest.Env
		want string
	}{
		"listener taken": {[]string{"serve", "--token", "off", "--listen", taken.Addr().String()},
			clitest.Env{"UPCALL_DATABASE_URL": "postgres://x"}, "listen for callbacks"},
		"database unreachable": {[]string{"migrate", "up"},
			clitest.Env{"UPCALL_DATABASE_URL": "postgres://u:hunter2@127.0.0.1:1/x"}, "connect to database x at 127.0.0.1:1"},
		"not a URL": {[]string{"migrate", "up"}, clitest.Env{"UPCALL_DATABASE_URL": "postgres://u:hunter2@:x/y"},
			"postgres://user:password@host"},
		"no receiver": {[]string{"healthcheck", "--admin-listen", "127.0.0.1:1"}, nil, "127.0.0.1:1"},
	} {
		err := program.Error(t, tt.env, tt.args...)
		if errors.Is(err, cli.ErrUsage) || !strings.Contains(err.Error(), tt.want) ||
			strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v, want one line with %q", name, err, tt.want)
		}
	}
}

func TestHelpShowsNoSecret(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	std := cli.Stdio{Out: &out, Err: io.Discard}
	env := cli.Env{"UPCALL_DATABASE_URL": "hunter2", "DATABASE_URL": "hunter2", "UPCALL_TOKEN_KEYS": "hunter2", "UPCALL_LISTEN": "hunter2"}
	if err := run(t.Context(), []string{"serve", "--help"}, env, std); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "UPCALL_LISTEN") || strings.Contains(out.String(), "hunter2") {
		t.Errorf("help:\n%s", &out)
	}
}
