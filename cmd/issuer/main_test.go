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
)

// goodEnv is an environment in which any good command line works.
func goodEnv() map[string]string {
	return map[string]string{
		"OSS_ACCESS_KEY_ID":     "ak",
		"OSS_ACCESS_KEY_SECRET": "hunter-sk",
		"OSS_REGION":            "cn-hangzhou",
		"UPCALL_TOKEN_KEYS":     "k1:hunter-0123456789abcdef",
	}
}

// good is a command line, so that a test adds one thing to it.
var good = []string{"put", "--bucket", "demo", "--key", "photos/cat.jpg", "--callback-url", "https://uploads.example.com/oss/callback"}

// execute runs the program and returns what it wrote and its exit status.
func execute(t *testing.T, env map[string]string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var out, remarks bytes.Buffer
	err := run(t.Context(), args, func(name string) string { return env[name] }, stdio{&out, &remarks})
	if err != nil {
		report(&remarks, err)
		status = exitCode(err)
	}
	return out.String(), remarks.String(), status
}

// executeJSON runs a command that is to succeed and returns its one JSON document.
func executeJSON(t *testing.T, env map[string]string, args ...string) upload {
	t.Helper()
	stdout, stderr, status := execute(t, env, append(args, "--format", "json")...)
	if status != 0 || stderr != "" {
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

// upload is the contract's JSON, written down once more.
type upload struct {
	UploadID    string            `json:"upload_id"`
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

// TestBadInput gives every flag and variable something wrong, asserts one line that
// says so, status 2, and nothing on stdout.
func TestBadInput(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		args []string // after good
		env  map[string]string
		want []string // one for each line, a part of it
	}{
		{"unknown flag", []string{"--nonsense"}, nil, []string{"unknown flag --nonsense"}},
		{"stray word", []string{"cat.jpg"}, nil, []string{"unexpected argument cat.jpg"}},
		{"flag without its value", []string{"--bucket"}, nil, []string{"--bucket"}},
		{"switch in words", nil, map[string]string{"UPCALL_INTERNAL": "maybe"}, []string{"--internal"}},

		{"bucket", []string{"--bucket", "Demo"}, nil, []string{"bucket:"}},
		{"bucket empty", []string{"--bucket="}, nil, []string{"bucket: is empty"}},
		{"key", []string{"--key", "/cat.jpg"}, nil, []string{"key:"}},
		{"key empty", []string{"--key="}, nil, []string{"key: is empty"}},
		{"region", []string{"--region", "oss-cn-hangzhou"}, nil, []string{"give cn-hangzhou"}},
		{"region by variable", nil, map[string]string{"OSS_REGION": "oss-cn-hangzhou"}, []string{"give cn-hangzhou"}},
		{"region missing", nil, map[string]string{"OSS_REGION": ""}, []string{"region: is empty"}},
		{"endpoint", []string{"--endpoint", "ftp://x"}, nil, []string{"endpoint:"}},
		{"endpoint elsewhere", []string{"--endpoint", "oss-cn-beijing.aliyuncs.com"}, nil, []string{"region cn-beijing"}},
		{"internal with endpoint", []string{"--internal", "--endpoint", "oss-cn-hangzhou.aliyuncs.com"}, nil, []string{"internal:"}},
		{"accelerate with internal", []string{"--accelerate", "--internal"}, nil, []string{"choose one"}},
		{"cname alone", []string{"--cname"}, nil, []string{"cname:"}},
		{"path style at OSS", []string{"--path-style"}, nil, []string{"path-style:"}},

		{"expires in words", []string{"--expires", "soon"}, nil, []string{`--expires: "soon" is not a duration; write 90s, 15m, 1h or 7d`}},
		{"expires without a unit", []string{"--expires", "3600"}, nil, []string{"--expires:"}},
		{"expires empty", []string{"--expires="}, nil, []string{"--expires:"}},
		{"expires 0", []string{"--expires", "0s"}, nil, []string{"expires: 0s is out of range"}},
		{"expires 8d", []string{"--expires", "8d"}, nil, []string{"1s to 7d"}},
		{"expires a century", []string{"--expires", "65535d"}, nil, []string{"1s to 7d"}},
		{"expires -1h", []string{"--expires=-1h"}, nil, []string{"1s to 7d"}},
		{"expires 1.5s", []string{"--expires", "1.5s"}, nil, []string{"whole seconds"}},
		{"expires by variable", nil, map[string]string{"UPCALL_EXPIRES": "1y"}, []string{"--expires:"}},

		{"callback URL private", []string{"--callback-url", "http://192.168.0.1/cb"}, nil, []string{"192.168.0.1"}},
		{"callback URL empty", []string{"--callback-url="}, nil, []string{"callbackUrl:"}},
		{"callback URL six times", slices.Repeat([]string{"--callback-url", "https://b.example.com/"}, 5), nil, []string{"6 URLs"}},
		{"callback URLs by variable", nil, map[string]string{"UPCALL_CALLBACK_URL": "x"}, nil}, // the flag wins
		{"callback host", []string{"--callback-host", "a b"}, nil, []string{"callbackHost:"}},
		{"callback body", []string{"--callback-body", "a=$b"}, nil, []string{"callbackBody:"}},
		{"callback body that is no JSON", []string{"--callback-body", "[${bucket}]", "--callback-body-type", "json"}, nil, []string{"callbackBody:"}},
		{"callback body type", []string{"--callback-body-type", "xml"}, nil, []string{`--callback-body-type: "xml" is unknown; use form or json`}},
		{"var without value", []string{"--var", "uid"}, nil, []string{`--var: "uid" is not name=value`}},
		{"var without name", []string{"--var", "=42"}, nil, []string{`--var: "=42" is not name=value`}},
		{"var twice", []string{"--var", "uid=1", "--var", "uid=2"}, nil, []string{`--var: "uid" is given twice`}},
		{"var in capitals", []string{"--var", "UID=1"}, nil, []string{"x:UID:"}},
		{"var with a default field's name", []string{"--var", "etag=1"}, nil, []string{"x:etag:"}},
		{"var with the token's name", []string{"--var", "upcall_token=1"}, nil, []string{"x:upcall_token:"}},
		{"var not in the template", []string{"--var", "uid=1", "--callback-body", "b=${bucket}"}, nil, []string{"x:uid:"}},
		{"carry", []string{"--carry", "pigeon"}, nil, []string{`--carry: "pigeon" is unknown; use header or query`}},

		{"content type", []string{"--content-type", "image"}, nil, []string{"content-type:"}},
		{"content length in words", []string{"--content-length", "1MB"}, nil, []string{"--content-length:"}},
		{"content length negative", []string{"--content-length=-1"}, nil, []string{"content-length:"}},
		{"content length beyond int64", []string{"--content-length", "9223372036854775808"}, nil, []string{"--content-length:"}},
		{"content MD5", []string{"--content-md5", "abc"}, nil, []string{"content-md5:"}},
		{"storage class", []string{"--storage-class", "standard"}, nil, []string{"storage-class:"}},
		{"acl", []string{"--acl", "public"}, nil, []string{"acl:"}},
		{"meta", []string{"--meta", "name"}, nil, []string{"--meta:"}},
		{"meta name", []string{"--meta", "a_b=c"}, nil, []string{"meta a_b:"}},
		{"tag", []string{"--tag", "name"}, nil, []string{"--tag:"}},
		{"tag value", []string{"--tag", "name=a&b"}, nil, []string{"tag name:"}},
		{"header", []string{"--header", "Cache-Control: no-cache"}, nil, []string{"--header:"}},
		{"header name", []string{"--header", "X-Custom=1"}, nil, []string{"header X-Custom:"}},
		{"header of the signature", []string{"--header", "x-oss-date=1"}, nil, []string{"header x-oss-date:"}},
		{"format", []string{"--format", "yaml"}, nil, []string{`--format: "yaml" is unknown; use text or json`}},

		{"no access key id", nil, map[string]string{"OSS_ACCESS_KEY_ID": ""}, []string{"OSS_ACCESS_KEY_ID"}},
		{"no access key secret", nil, map[string]string{"OSS_ACCESS_KEY_SECRET": ""}, []string{"OSS_ACCESS_KEY_SECRET"}},
		{"secret with a line break", nil, map[string]string{"OSS_ACCESS_KEY_SECRET": "hunter\n2"}, []string{"access key secret:"}},
		{"secret twice", nil, map[string]string{"OSS_ACCESS_KEY_SECRET_FILE": "/dev/null"}, []string{"OSS_ACCESS_KEY_SECRET_FILE"}},
		{"secret file missing", nil, map[string]string{"OSS_ACCESS_KEY_SECRET": "", "OSS_ACCESS_KEY_SECRET_FILE": "/nonexistent"}, []string{"OSS_ACCESS_KEY_SECRET_FILE"}},
		{"id file missing", nil, map[string]string{"OSS_ACCESS_KEY_ID": "", "OSS_ACCESS_KEY_ID_FILE": "/nonexistent"}, []string{"OSS_ACCESS_KEY_ID_FILE"}},
		{"session token file empty", nil, map[string]string{"OSS_SESSION_TOKEN_FILE": "/dev/null"}, []string{"OSS_SESSION_TOKEN_FILE"}},
		{"token keys", nil, map[string]string{"UPCALL_TOKEN_KEYS": "hunter2"}, []string{"UPCALL_TOKEN_KEYS: key 1"}},
		{"two bad token keys", nil, map[string]string{"UPCALL_TOKEN_KEYS": "hunter2,K2:hunter2"}, []string{"UPCALL_TOKEN_KEYS: key 1", "UPCALL_TOKEN_KEYS: key 2"}},
		{"token keys file missing", nil, map[string]string{"UPCALL_TOKEN_KEYS": "", "UPCALL_TOKEN_KEYS_FILE": "/nonexistent"}, []string{"UPCALL_TOKEN_KEYS_FILE"}},

		{"all at once", []string{"--bucket", "B", "--expires", "soon", "--content-length", "x", "--format", "yaml", "--carry", "x", "--var", "y"},
			map[string]string{"OSS_REGION": "", "OSS_ACCESS_KEY_ID": "", "UPCALL_TOKEN_KEYS": "z"},
			[]string{"region:", "access key id:", "UPCALL_TOKEN_KEYS:", "--expires:", "--content-length:", "--var:", "--carry:", "bucket:", "--format:"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			env := goodEnv()
			maps.Copy(env, tt.env)
			stdout, stderr, status := execute(t, env, slices.Concat(good, tt.args)...)
			if tt.want == nil {
				if status != 0 {
					t.Errorf("status %d: %s", status, stderr)
				}
				return
			}
			if status != 2 || stdout != "" {
				t.Errorf("status %d, want 2; stdout %q", status, stdout)
			}
			lines := strings.Split(strings.TrimSuffix(stderr, "\n"), "\n")
			if len(lines) != len(tt.want) {
				t.Fatalf("%d lines, want %d:\n%s", len(lines), len(tt.want), stderr)
			}
			for i, line := range lines {
				if !strings.HasPrefix(line, "issuer: ") || !strings.Contains(line, tt.want[i]) {
					t.Errorf("line %q does not say %q", line, tt.want[i])
				}
			}
			if strings.Contains(stderr, "hunter") {
				t.Errorf("a secret is shown: %s", stderr)
			}
		})
	}
}

// TestNoCallback: settings of a callback that there is not would silently do nothing.
func TestNoCallback(t *testing.T) {
	t.Parallel()
	plain := []string{"put", "--bucket", "demo", "--key", "cat.jpg"}
	for _, args := range [][]string{
		{"--callback-host", "h"}, {"--callback-sni"}, {"--no-callback-sni"}, {"--callback-body", "a=b"}, {"--var", "uid=1"},
	} {
		_, stderr, status := execute(t, goodEnv(), slices.Concat(plain, args)...)
		if status != 2 || !strings.Contains(stderr, "give --callback-url") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%v: status %d: %s", args, status, stderr)
		}
	}
	u := executeJSON(t, goodEnv(), plain...)
	if u.Callback != nil || u.CallbackVar != nil || len(u.Headers) != 0 {
		t.Errorf("a plain upload has %+v", u)
	}
	stdout, stderr, status := execute(t, goodEnv(), plain...)
	if status != 0 || stderr != "" || !strings.Contains(stdout, "no callback will come") {
		t.Errorf("status %d, %s%s", status, stdout, stderr)
	}
}

func TestPutJSON(t *testing.T) {
	t.Parallel()
	u := executeJSON(t, goodEnv(), slices.Concat(good, []string{
		"--expires", "2d", "--var", "uid=a=b", "--var", "note=x,y;z", "--content-type", "image/jpeg", "--content-length", "1048576",
		"--content-md5", "1B2M2Y8AsgTpgAmY7PhCfg==", "--storage-class", "IA", "--acl", "private", "--meta", "origin=c.jpg", "--tag", "a=1",
		"--tag", "b=2", "--header", "Cache-Control=no-cache, max-age=0", "--forbid-overwrite", "--callback-host", "cb.example.com",
		"--callback-url", "https://second.example.com/a,b",
	})...)
	if u.Method != "PUT" || len(u.UploadID) != 36 {
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
	if diff := cmp.Diff(map[string]string{"x:uid": "a=b", "x:note": "x,y;z", "x:upcall_token": token}, u.CallbackVar); diff != "" || token == "" {
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
		"cache-control": "no-cache, max-age=0", "content-length": "1048576", "content-md5": "1B2M2Y8AsgTpgAmY7PhCfg==", "content-type": "image/jpeg",
		"x-oss-callback": u.Headers["x-oss-callback"], "x-oss-callback-var": u.Headers["x-oss-callback-var"], "x-oss-forbid-overwrite": "true",
		"x-oss-meta-origin": "c.jpg", "x-oss-object-acl": "private", "x-oss-storage-class": "IA", "x-oss-tagging": "a=1&b=2",
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
		"OSS_ENDPOINT": "files.example.com", "UPCALL_CNAME": "true", "UPCALL_BUCKET": "demo", "UPCALL_KEY": "cat.jpg", "UPCALL_EXPIRES": "90s",
		"UPCALL_CONTENT_TYPE": "image/png", "UPCALL_CONTENT_LENGTH": "7", "UPCALL_CONTENT_MD5": "1B2M2Y8AsgTpgAmY7PhCfg==",
		"UPCALL_STORAGE_CLASS": "IA", "UPCALL_ACL": "private", "UPCALL_META": "a=1\nb=2, 3; 4\n", "UPCALL_TAG": "t=1", "UPCALL_HEADER": "Cache-Control=no-cache",
		"UPCALL_FORBID_OVERWRITE": "1", "UPCALL_CALLBACK_URL": "http://a.example.com/\r\nhttp://b.example.com/", "UPCALL_CALLBACK_HOST": "c.example.com",
		"UPCALL_CALLBACK_SNI": "true", "UPCALL_CALLBACK_BODY": `{"o":${object},"u":${x:uid}}`, "UPCALL_CALLBACK_BODY_TYPE": "json",
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
		"callbackBody": `{"o":${object},"u":${x:uid},"upcall_token":${x:upcall_token}}`, "callbackBodyType": "application/json",
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

	// Flags win.
	stdout, stderr, status = execute(t, env, "put", "--key", "dog.jpg", "--expires", "1m", "--no-callback-sni", "--var", "uid=43", "--carry", "header", "--meta", "c=4")
	if status != 0 {
		t.Fatalf("status %d: %s", status, stderr)
	}
	var v upload
	if err := json.Unmarshal([]byte(stdout), &v); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(v.URL, "https://files.example.com/dog.jpg?x-oss-") || v.query(t).Get("x-oss-expires") != "60" || v.Callback["callbackSNI"] != nil ||
		v.CallbackVar["x:uid"] != "43" || v.Headers["x-oss-meta-c"] != "4" || v.Headers["x-oss-meta-a"] != "" {
		t.Errorf("the variables win: %s", stdout)
	}
}

// TestEveryFlagHasAVariable reads the help.
func TestEveryFlagHasAVariable(t *testing.T) {
	t.Parallel()
	env := goodEnv()
	for _, name := range []string{"UPCALL_BUCKET", "UPCALL_CALLBACK_URL", "UPCALL_EXPIRES", "OSS_ENDPOINT", "OSS_SESSION_TOKEN"} {
		env[name] = "hunter2"
	}
	help, stderr, status := execute(t, env, "put", "--help")
	if status != 0 || stderr != "" {
		t.Fatalf("status %d: %s", status, stderr)
	}
	if strings.Contains(help, "hunter") {
		t.Errorf("the help shows values of variables:\n%s", help)
	}
	if !strings.Contains(strings.Join(strings.Fields(help), " "), "Private addresses, localhost and names without a dot are taken only where the endpoint itself is one of those") {
		t.Error("the help does not say when private callback addresses are taken")
	}
	text := strings.Join(strings.Fields(help), " ")
	flags := 0
	for field := range strings.FieldsSeq(text) {
		name, ok := strings.CutPrefix(field, "--")
		if !ok || name == "help" {
			continue
		}
		name, _, _ = strings.Cut(strings.TrimPrefix(name, "[no-]"), "=")
		variable := "UPCALL_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		if name == "region" || name == "endpoint" {
			variable = "OSS_" + strings.ToUpper(name)
		}
		if !strings.Contains(text, "($"+variable+")") {
			t.Errorf("--%s has no %s", name, variable)
		}
		flags++
	}
	if flags < 20 {
		t.Errorf("the help shows %d flags", flags)
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
	env := map[string]string{"OSS_REGION": "cn-hangzhou"}
	for name, content := range map[string]string{
		"OSS_ACCESS_KEY_ID": "ak\n", "OSS_ACCESS_KEY_SECRET": "hunter-sk\n", "OSS_SESSION_TOKEN": "sts\r\n", "UPCALL_TOKEN_KEYS": "k7:hunter-0123456789abcdef\n",
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
		_, stderr, status := execute(t, env, slices.Concat(good, []string{"--format", format})...)
		if status != 0 || !strings.HasPrefix(stderr, "issuer: warning: no upload token") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("without token keys: status %d, %q", status, stderr)
		}
	}
	env["UPCALL_TOKEN_KEYS"] = "k1:hunter2,k2:hunter-0123456789abcdef"
	stdout, stderr, status := execute(t, env, good...)
	if status != 0 || !strings.Contains(stderr, "k1") || strings.Contains(stderr, "k2") || strings.Contains(stdout+stderr, "hunter") {
		t.Errorf("with a weak token key: status %d, %q", status, stderr)
	}
}

// brokenPipe is a standard output that nobody reads.
type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestOutputFails(t *testing.T) {
	t.Parallel()
	env := goodEnv()
	for _, format := range []string{"text", "json"} {
		err := run(t.Context(), slices.Concat(good, []string{"--format", format}), func(name string) string { return env[name] }, stdio{brokenPipe{}, io.Discard})
		if err == nil || exitCode(err) != 1 || !strings.Contains(err.Error(), "broken pipe") {
			t.Errorf("%s: error %v, status %d", format, err, exitCode(err))
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
