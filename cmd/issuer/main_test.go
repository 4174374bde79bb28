package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/callbackspec"
	"upcall/internal/cli"
	"upcall/internal/testing/clitest"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/proc"
)

// goodEnv returns an environment in which every valid command line works.
func goodEnv() clitest.Env {
	return clitest.Env{
		"OSS_ACCESS_KEY_ID":     ossfake.AccessKeyID,
		"OSS_ACCESS_KEY_SECRET": ossfake.AccessKeySecret,
		"OSS_REGION":            ossfake.Region,
		"UPCALL_TOKEN_KEYS":     "k1:hunter-0123456789abcdef",
	}
}

// good is a valid command line, to which a test adds one thing.
var good = []string{"put", "--bucket", "demo", "--key", "photos/cat.jpg", "--callback-url", "https://uploads.example.com/oss/callback"}

var program = clitest.Program(run)

func TestMain(m *testing.M) {
	proc.Main(map[string]func(){"issuer": main})
	os.Exit(m.Run())
}

// execute runs the program and returns what it wrote and its exit status.
func execute(t *testing.T, env clitest.Env, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	return feed(t, env, "", args...)
}

// feed runs the program with stdin to read.
func feed(t *testing.T, env clitest.Env, stdin string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	stdout, stderr, err := program.Feed(t, env, stdin, args...)
	if err != nil {
		var report strings.Builder
		cli.Report(&report, "issuer", err)
		return stdout, stderr + report.String(), cli.ExitCode(err)
	}
	return stdout, stderr, 0
}

// emulated returns an environment that points at an emulator and has a directory for the
// state of uploads, and the gate in front of the emulator.
func emulated(t *testing.T) (clitest.Env, *ossfake.Gate) {
	t.Helper()
	gate, env := ossfake.NewGate(t, ossfake.NewEmulator(t)), goodEnv()
	env["OSS_ENDPOINT"], env["UPCALL_STATE_DIR"] = gate.URL, filepath.Join(t.TempDir(), "state")
	return env, gate
}

// checkLines checks that there is one line of the program for each part of want, in that
// order, and no secret in any of them.
func checkLines(t *testing.T, stderr string, want []string) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(stderr, "\n"), "\n")
	if len(lines) != len(want) {
		t.Fatalf("%d lines, want %d:\n%s", len(lines), len(want), stderr)
	}
	for i, part := range want {
		if !strings.HasPrefix(lines[i], "issuer: ") || !strings.Contains(lines[i], part) {
			t.Errorf("line %q does not say %q", lines[i], part)
		}
	}
	if strings.Contains(stderr, "hunter") {
		t.Errorf("a secret is shown: %s", stderr)
	}
}

// executeJSON runs a command that must succeed and returns its only JSON document.
func executeJSON(t *testing.T, env clitest.Env, args ...string) upload {
	t.Helper()
	stdout, stderr, status := execute(t, env, append(args, "--format", "json")...)
	if status != 0 || strings.TrimPrefix(stderr, contentTypeNote) != "" {
		t.Fatalf("status %d: %s", status, stderr)
	}
	dec := json.NewDecoder(strings.NewReader(stdout))
	dec.DisallowUnknownFields()
	var u upload
	if err := dec.Decode(&u); err != nil {
		t.Fatalf("%v in %s", err, stdout)
	}
	if _, err := dec.Token(); err != io.EOF {
		t.Fatalf("more than one document: %s", stdout)
	}
	return u
}

// upload is the JSON that users rely on, declared here independently of the program.
type upload struct {
	UploadID    string            `json:"upload_id"`
	Bucket      string            `json:"bucket"`
	Key         string            `json:"key"`
	Method      string            `json:"method"`
	URL         string            `json:"url"`
	ExpiresAt   time.Time         `json:"expires_at"`
	Headers     map[string]string `json:"headers"`
	Callback    map[string]any    `json:"callback"`
	CallbackVar map[string]string `json:"callback_var"`
}

func (u upload) query(t *testing.T) url.Values {
	t.Helper()
	parsed, err := url.Parse(u.URL)
	if err != nil {
		t.Fatal(err)
	}
	return parsed.Query()
}

func TestPutJSON(t *testing.T) {
	t.Parallel()
	u := executeJSON(t, goodEnv(), slices.Concat(good, []string{
		"--expires", "2d", "--var", "uid=a=b", "--var", "note=x,y;z", "--content-type", "image/jpeg", "--content-length", "1048576",
		"--content-md5", "1B2M2Y8AsgTpgAmY7PhCfg==", "--storage-class", "IA", "--acl", "private", "--meta", "origin=c.jpg", "--tag", "a=1",
		"--tag", "b=2", "--header", "Cache-Control=no-cache, max-age=0", "--forbid-overwrite", "--callback-host", "cb.example.com",
		"--callback-url", "https://second.example.com/a,b",
	})...)
	if u.Method != "PUT" || len(u.UploadID) != 36 || u.Bucket != "demo" || u.Key != "photos/cat.jpg" {
		t.Errorf("%+v", u)
	}
	query := u.query(t)
	if got := query.Get("x-oss-expires"); got != "172800" {
		t.Errorf("x-oss-expires %s", got)
	}
	start, err := time.Parse("20060102T150405Z", query.Get("x-oss-date"))
	if err != nil || !start.Add(48*time.Hour).Equal(u.ExpiresAt) {
		t.Errorf("from %s for two days, but expires at %s (%v)", start, u.ExpiresAt, err)
	}
	token := u.CallbackVar["x:upcall_token"]
	vars := map[string]string{"x:uid": "a=b", "x:note": "x,y;z", "x:upcall_token": token}
	if diff := cmp.Diff(vars, u.CallbackVar); diff != "" || token == "" {
		t.Errorf("callback_var (-want +got):\n%s", diff)
	}
	body, err := callbackspec.DefaultBody(callbackspec.Form, []string{"uid", "note"}, true)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]any{
		"callbackUrl":      "https://uploads.example.com/oss/callback;https://second.example.com/a,b",
		"callbackHost":     "cb.example.com",
		"callbackBody":     body,
		"callbackBodyType": "application/x-www-form-urlencoded",
		"callbackSNI":      true,
	}, u.Callback); diff != "" {
		t.Errorf("callback (-want +got):\n%s", diff)
	}
	want := map[string]string{
		"cache-control": "no-cache, max-age=0", "content-length": "1048576", "content-md5": "1B2M2Y8AsgTpgAmY7PhCfg==",
		"content-type":   "image/jpeg",
		"x-oss-callback": u.Headers["x-oss-callback"], "x-oss-callback-var": u.Headers["x-oss-callback-var"],
		"x-oss-forbid-overwrite": "true",
		"x-oss-meta-origin":      "c.jpg", "x-oss-object-acl": "private", "x-oss-storage-class": "IA", "x-oss-tagging": "a=1&b=2",
	}
	if diff := cmp.Diff(want, u.Headers); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
}

// TestEnvironment sets every flag by its variable.
func TestEnvironment(t *testing.T) {
	t.Parallel()
	env := goodEnv()
	maps.Copy(env, map[string]string{
		"OSS_ENDPOINT": "files.example.com", "UPCALL_CNAME": "true", "UPCALL_BUCKET": "demo", "UPCALL_KEY": "cat.jpg",
		"UPCALL_EXPIRES":      "90s",
		"UPCALL_CONTENT_TYPE": "image/png", "UPCALL_CONTENT_LENGTH": "7", "UPCALL_CONTENT_MD5": "1B2M2Y8AsgTpgAmY7PhCfg==",
		"UPCALL_STORAGE_CLASS": "IA", "UPCALL_ACL": "private", "UPCALL_META": "a=1\nb=2, 3; 4\n", "UPCALL_TAG": "t=1",
		"UPCALL_HEADER":           "Cache-Control=no-cache",
		"UPCALL_FORBID_OVERWRITE": "1", "UPCALL_CALLBACK_URL": "http://a.example.com/\r\nhttp://b.example.com/",
		"UPCALL_CALLBACK_HOST": "c.example.com",
		"UPCALL_CALLBACK_SNI":  "true", "UPCALL_CALLBACK_BODY": `{"o":${object},"u":${x:uid}}`, "UPCALL_CALLBACK_BODY_TYPE": "json",
		"UPCALL_VAR": "uid=42", "UPCALL_CARRY": "query", "UPCALL_INTERNAL": "false", "UPCALL_ACCELERATE": "0", "UPCALL_PATH_STYLE": "no",
		"UPCALL_FORMAT": "json",
	})
	stdout, stderr, status := execute(t, env, "put")
	if status != 0 || stderr != "" {
		t.Fatalf("status %d: %s", status, stderr)
	}
	var u upload
	if err := json.Unmarshal([]byte(stdout), &u); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(u.URL, "https://files.example.com/cat.jpg?callback=") || u.query(t).Get("x-oss-expires") != "90" {
		t.Errorf("URL %s", u.URL)
	}
	if diff := cmp.Diff(map[string]any{
		"callbackUrl": "http://a.example.com/;http://b.example.com/", "callbackHost": "c.example.com", "callbackSNI": true,
		"callbackBody": `{"o":${object},"u":${x:uid},"reqId":${reqId},"upcall_token":${x:upcall_token}}`, "callbackBodyType": "application/json",
	}, u.Callback); diff != "" {
		t.Errorf("callback (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{
		"cache-control": "no-cache", "content-length": "7", "content-md5": "1B2M2Y8AsgTpgAmY7PhCfg==", "content-type": "image/png",
		"x-oss-forbid-overwrite": "true", "x-oss-meta-a": "1", "x-oss-meta-b": "2, 3; 4", "x-oss-object-acl": "private",
		"x-oss-storage-class": "IA", "x-oss-tagging": "t=1",
	}, u.Headers); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}

	// Flags win over variables.
	stdout, stderr, status = execute(t, env, "put", "--key", "dog.jpg", "--expires", "1m", "--no-callback-sni", "--var", "uid=43",
		"--carry", "header", "--meta", "c=4")
	if status != 0 {
		t.Fatalf("status %d: %s", status, stderr)
	}
	var v upload
	if err := json.Unmarshal([]byte(stdout), &v); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(v.URL, "https://files.example.com/dog.jpg?x-oss-") || v.query(t).Get("x-oss-expires") != "60" ||
		v.Callback["callbackSNI"] != nil ||
		v.CallbackVar["x:uid"] != "43" || v.Headers["x-oss-meta-c"] != "4" || v.Headers["x-oss-meta-a"] != "" {
		t.Errorf("the variables win over the flags: %s", stdout)
	}
}

// TestEveryFlagHasAVariable checks the help texts.
func TestEveryFlagHasAVariable(t *testing.T) {
	t.Parallel()
	env := goodEnv()
	for _, name := range []string{
		"UPCALL_BUCKET", "UPCALL_CALLBACK_URL", "UPCALL_EXPIRES", "OSS_ENDPOINT", "OSS_SESSION_TOKEN", "UPCALL_POLICIES",
		"UPCALL_API_LISTEN",
	} {
		env[name] = "hunter2"
	}
	for command, least := range map[string]int{
		"put": 20, "multipart create": 20, "multipart complete": 8, "multipart abort": 8, "serve": 8, "keys add": 2, "keys list": 1,
	} {
		help, stderr, status := execute(t, env, append(strings.Fields(command), "--help")...)
		if status != 0 || stderr != "" || strings.Contains(help, "hunter") {
			t.Errorf("%s: status %d: %s%s", command, status, stderr, help)
		}
		text := strings.Join(strings.Fields(help), " ")
		flags := 0
		for field := range strings.FieldsSeq(text) {
			name, ok := strings.CutPrefix(field, "--")
			if !ok || name == "help" || name == "version" {
				continue
			}
			name, _, _ = strings.Cut(strings.TrimPrefix(name, "[no-]"), "=")
			variable := strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
			if !strings.Contains(text, "($UPCALL_"+variable+")") && !strings.Contains(text, "($OSS_"+variable+")") &&
				!strings.Contains(text, "Better in UPCALL_"+variable) {
				t.Errorf("%s: --%s has no variable", command, name)
			}
			flags++
		}
		if flags < least {
			t.Errorf("the help of %s shows %d flags", command, flags)
		}
	}
	help := strings.Join(strings.Fields(program.Output(t, env, "upload", "--help")), " ") // which also names flags of other commands
	for _, name := range []string{
		"UPCALL_MANIFEST", "UPCALL_PARALLEL", "UPCALL_ATTEMPTS", "UPCALL_STATE_DIR", "UPCALL_PART_SIZE", "UPCALL_BUCKET", "OSS_REGION",
	} {
		if !strings.Contains(help, "($"+name+")") {
			t.Errorf("the help of upload does not name %s:\n%s", name, help)
		}
	}
	help = strings.Join(strings.Fields(program.Output(t, env, "put", "--help")), " ")
	const private = "Private addresses, localhost and names without a dot are accepted only if the endpoint itself is one of those"
	if !strings.Contains(help, private) {
		t.Error("the help does not say when private callback addresses are accepted")
	}
	top, _, status := execute(t, env, "--help")
	for _, name := range []string{"OSS_ACCESS_KEY_ID", "OSS_ACCESS_KEY_SECRET", "OSS_SESSION_TOKEN", "UPCALL_TOKEN_KEYS", "_FILE"} {
		if !strings.Contains(top, name) || status != 0 {
			t.Errorf("the help does not name %s", name)
		}
	}
}

func TestSecretsFromFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	env := map[string]string{"OSS_REGION": "cn-hangzhou", "UPCALL_STS_EXPIRATION": time.Now().Add(2 * time.Hour).Format(time.RFC3339)}
	for name, content := range map[string]string{
		"OSS_ACCESS_KEY_ID": "ak\n", "OSS_ACCESS_KEY_SECRET": "hunter-sk\n", "OSS_SESSION_TOKEN": "sts\r\n",
		"UPCALL_TOKEN_KEYS": "k7:hunter-0123456789abcdef\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		env[name+"_FILE"] = path
	}
	u := executeJSON(t, env, good...)
	query := u.query(t)
	if got := query.Get("x-oss-security-token"); got != "sts" {
		t.Errorf("session token %q", got)
	}
	if got := query.Get("x-oss-credential"); !strings.HasPrefix(got, "ak/") {
		t.Errorf("credential %q", got)
	}
	if got := u.CallbackVar["x:upcall_token"]; !strings.HasPrefix(got, "k7.") {
		t.Errorf("token %q", got)
	}
	if text, _ := json.Marshal(u); bytes.Contains(text, []byte("hunter")) {
		t.Errorf("a secret is shown: %s", text)
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	env := goodEnv()
	env["UPCALL_TOKEN_KEYS"] = ""
	for _, format := range []string{"text", "json"} {
		_, stderr, status := execute(t, env, slices.Concat(good, []string{"--format", format, "--content-type", "image/jpeg"})...)
		const warning = "issuer: warning: UPCALL_TOKEN_KEYS is not set, so there is no upload token"
		if status != 0 || !strings.HasPrefix(stderr, warning) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("without token keys: status %d, %q", status, stderr)
		}
	}
	env["UPCALL_TOKEN_KEYS"] = "k1:hunter2,k2:hunter-0123456789abcdef"
	stdout, stderr, status := execute(t, env, good...)
	if status != 0 || !strings.Contains(stderr, "k1") || strings.Contains(stderr, "k2") || strings.Contains(stdout+stderr, "hunter") {
		t.Errorf("with a weak token key: status %d, %q", status, stderr)
	}
	env = goodEnv()
	for region, want := range map[string]string{"hangzhou": "did you mean cn-hangzhou?", "cn-nowhere-9": `region "cn-nowhere-9"`, "cn-hangzhou": ""} {
		env["OSS_REGION"] = region
		_, stderr, status := execute(t, env, append(slices.Clone(good), "--content-type", "image/jpeg")...)
		if status != 0 || !strings.Contains(stderr, want) || (want == "") != (stderr == "") {
			t.Errorf("region %s: status %d, %q", region, status, stderr)
		}
	}
}

// TestContentTypeNote: the programs send what was signed, and other clients may not.
func TestContentTypeNote(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, contentTypeNote},
		{[]string{"--format", "json"}, contentTypeNote},
		{[]string{"--format", "curl"}, ""},
		{[]string{"--content-type", "image/jpeg"}, ""},
	} {
		if _, stderr, status := execute(t, goodEnv(), slices.Concat(good, tt.args)...); status != 0 || stderr != tt.want {
			t.Errorf("%v: status %d, %q", tt.args, status, stderr)
		}
	}
}

func TestOutputFails(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"text", "json"} {
		err := program.IntoBrokenPipe(t, goodEnv(), append(slices.Clone(good), "--format", format)...)
		if !errors.Is(err, clitest.ErrBrokenPipe) || cli.ExitCode(err) != 1 {
			t.Errorf("%s: error %v, status %d", format, err, cli.ExitCode(err))
		}
	}
}

func TestNoCommand(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"get"}} {
		_, stderr, status := execute(t, goodEnv(), args...)
		if status != 2 || !strings.HasPrefix(stderr, "issuer: ") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%v: status %d, %q", args, status, stderr)
		}
	}
}
