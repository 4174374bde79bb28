package main

import (
	"context"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"upcall/internal/callbackspec"
	"upcall/internal/ossemu"
	"upcall/internal/testing/toolchain"
	"upcall/internal/uploadtoken"
)

// answer is what the receiver of the tests says, and an uploader must see.
const answer = `{"status":"ok"}`

// A world is an emulator and a receiver, and an environment that points at them.
type world struct {
	env      map[string]string
	receiver string        // callback URL
	bodies   chan *request // callbacks that arrived
}

type request struct {
	contentType string
	body        []byte
}

func newWorld(t *testing.T, change ...func(*ossemu.Config)) world {
	t.Helper()
	w := world{bodies: make(chan *request, 10)}
	receiver := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.bodies <- &request{r.Header.Get("Content-Type"), body}
		if r.URL.Path == "/refuse" {
			rw.WriteHeader(http.StatusForbidden)
			return
		}
		rw.Header().Set("Content-Type", "application/json")
		rw.Header().Set("Content-Length", strconv.Itoa(len(answer)))
		io.WriteString(rw, answer)
	}))
	t.Cleanup(receiver.Close)
	cfg := ossemu.Config{AccessKeyID: "ak", AccessKeySecret: "hunter-sk", Region: "cn-hangzhou", Buckets: []string{"demo"}}
	for _, f := range change {
		f(&cfg)
	}
	emulator, err := ossemu.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	oss := httptest.NewServer(emulator)
	t.Cleanup(oss.Close)
	t.Cleanup(emulator.Close)
	w.receiver = receiver.URL
	w.env = goodEnv()
	w.env["OSS_ENDPOINT"] = oss.URL
	return w
}

// callback returns the one callback that came, whose token must be for the key.
func (w world) callback(t *testing.T, key string) callbackspec.Callback {
	t.Helper()
	if len(w.bodies) != 1 {
		t.Fatalf("%d callbacks came, want 1", len(w.bodies))
	}
	r := <-w.bodies
	callback, err := callbackspec.Parse(r.contentType, r.body, nil)
	if err != nil {
		t.Fatalf("%v in %s", err, r.body)
	}
	ring, err := uploadtoken.ParseKeys(w.env["UPCALL_TOKEN_KEYS"])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ring.Check(callback.Token, "demo", key, time.Now()); err != nil {
		t.Errorf("token: %v", err)
	}
	if callback.Bucket != "demo" || callback.Object != key {
		t.Errorf("callback for %s in %s, want %s in demo", callback.Object, callback.Bucket, key)
	}
	return callback
}

// TestCurl runs the command that the text shows, through sh, for keys and values that a
// shell, a URL and curl each read in a way of their own.
func TestCurl(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "curl")
	tests := []struct {
		name string
		key  string
		args []string
	}{
		{"plain", "cat.jpg", nil},
		{"everything", "photos/2026/cat.jpg", []string{"--content-type", "text/plain; charset=utf-8", "--content-length", "11", "--content-md5", "XrY7u+Ae7tCTyyK7j1rNww==",
			"--storage-class", "IA", "--acl", "private", "--meta", "origin='a' \"b\" $HOME `id` \\ !x", "--tag", "a=1 + 2", "--header", "Cache-Control=no-cache",
			"--header", `Content-Disposition=attachment; filename="it's.txt"`, "--var", "uid='42'", "--forbid-overwrite"}},
		{"callback in the query", "q/cat.jpg", []string{"--carry", "query", "--var", "uid=ü+/=&%"}},
		{"JSON", "json/cat.jpg", []string{"--callback-body-type", "json", "--var", `uid="quoted" \ back`}},
		{"own template", "own/cat.jpg", []string{"--callback-body", `{"bucket":${bucket},"object":${object}}`, "--callback-body-type", "json"}},
		{"quotes and shell characters", `it's "a" $(touch pwned) ; & | > < * ? ~.jpg`, nil},
		{"percent, plus and fragments", "100%/a+b%41#c?d=e&f.jpg", nil},
		{"other scripts", "фото/猫 café 😀.jpg", nil},
		{"dots that curl would resolve", "a/../b/./c..", nil},
		{"folder", "a/folder/", nil},
		{"folder with a type", "a/folder/", []string{"--content-type", "application/x-directory"}},
		{"two slashes", "a//b.jpg", nil},
		{"brackets that curl would expand", "a[1-3]{x,y}.jpg", nil},
		{"longest", strings.Repeat("k", 1023), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			text, stderr, status := execute(t, w.env, slices.Concat([]string{"put", "--bucket", "demo", "--key", tt.key, "--callback-url", w.receiver + "/oss/callback"}, tt.args)...)
			if status != 0 || stderr != "" {
				t.Fatalf("status %d: %s", status, stderr)
			}
			out := runCurl(t, text, "hello world")
			if out != answer+"\n200\n" {
				t.Errorf("curl printed %q", out)
			}
			if callback := w.callback(t, tt.key); tt.name != "own template" && (callback.Size == nil || *callback.Size != 11) {
				t.Errorf("callback without the size: %+v", callback)
			}
		})
	}
}

// TestCurlFailures: a callback that fails looks like success to curl, and the text says
// so; a file of the wrong size is refused by the signature.
func TestCurlFailures(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "curl")
	w := newWorld(t)
	put := []string{"put", "--bucket", "demo", "--key", "cat.jpg"}
	text, _, _ := execute(t, w.env, append(put, "--callback-url", w.receiver+"/refuse")...)
	if out := runCurl(t, text, "hello world"); !strings.HasSuffix(out, "\n203\n") || !strings.Contains(out, "CallbackFailed") || !strings.Contains(text, "203") {
		t.Errorf("curl printed %q", out)
	}
	text, _, _ = execute(t, w.env, append(put, "--content-length", "7")...)
	if out := runCurl(t, text, "hello world"); !strings.HasSuffix(out, "\n403\n") || !strings.Contains(out, "SignatureDoesNotMatch") {
		t.Errorf("curl printed %q", out)
	}
	// Five URLs, of which the last works.
	urls := slices.Repeat([]string{"--callback-url", w.receiver + "/refuse"}, 4)
	text, _, _ = execute(t, w.env, slices.Concat(put, urls, []string{"--callback-url", w.receiver + "/ok"})...)
	if out := runCurl(t, text, "hello world"); out != answer+"\n200\n" {
		t.Errorf("curl printed %q", out)
	}
}

var command = regexp.MustCompile(`(?ms)^curl .*?FILE '[^\n]*'$`)

// runCurl runs the curl command of a text in a folder that holds FILE alone.
func runCurl(t *testing.T, text, content string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "FILE"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	sh := exec.CommandContext(ctx, "sh")
	sh.Dir = dir
	sh.Stdin = strings.NewReader(command.FindString(text)) // as if pasted
	sh.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}
	var remarks strings.Builder
	sh.Stderr = &remarks
	out, _ := sh.Output() // the exit status of curl is not what is tested
	if len(out) == 0 {
		t.Fatalf("curl printed nothing: %s\n%s", remarks.String(), text)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("the shell ran something of the key's: %v %v", entries, err)
	}
	return string(out)
}

// TestUploadFromJSON uploads as a program does: with the URL and the headers of the JSON
// and nothing else, and with each header left out or changed in turn.
func TestUploadFromJSON(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, carry := range []string{"header", "query"} {
		u := executeJSON(t, w.env, "put", "--bucket", "demo", "--key", carry+"/a b.txt", "--content-type", "text/plain", "--meta", "a=1", "--acl", "private",
			"--header", "Cache-Control=no-cache", "--callback-url", w.receiver+"/oss/callback", "--var", "uid=42", "--carry", carry)
		if status, body := send(t, u.URL, u.Headers); status != http.StatusOK || body != answer {
			t.Fatalf("%s: status %d: %s", carry, status, body)
		}
		if got := string(w.callback(t, carry+"/a b.txt").Vars["uid"]); got != `"42"` {
			t.Errorf("%s: uid is %s", carry, got)
		}
		for name := range u.Headers {
			changed := maps.Clone(u.Headers)
			changed[name] += "x"
			missing := maps.Clone(u.Headers)
			delete(missing, name)
			for _, headers := range []map[string]string{changed, missing} {
				if status, body := send(t, u.URL, headers); status < 400 {
					t.Errorf("%s: without the right %s: status %d: %s", carry, name, status, body)
				}
			}
		}
		if len(w.bodies) != 0 {
			t.Errorf("%s: a refused upload was called back", carry)
		}
	}
}

func send(t *testing.T, url string, headers map[string]string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url, strings.NewReader("hello world"))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range headers {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}

func TestInWords(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0:                              "no time",
		time.Second:                    "1 second",
		59*time.Minute + 59500*1000000: "1 hour",
		90 * time.Minute:               "1 hour 30 minutes",
		7 * 24 * time.Hour:             "7 days",
		49*time.Hour + 2*time.Second:   "2 days 1 hour 2 seconds",
	} {
		if got := inWords(d); got != want {
			t.Errorf("%s is %q, want %q", d, got, want)
		}
	}
}
