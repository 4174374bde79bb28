package e2e

import (
	"context"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"upcall/internal/testing/toolchain"
)

// TestCurl runs the command in the text through sh, with keys and values that a shell, a URL
// and curl each treat specially.
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
			"--storage-class", "IA", "--acl", "private", "--meta", "origin='a' \"b\" $HOME `id` \\ !x", "--tag", "a=1 + 2", "--header",
			"Cache-Control=no-cache",
			"--header", `Content-Disposition=attachment; filename="it's.txt"`, "--var", "uid='42'", "--forbid-overwrite"}},
		{"callback in the query", "q/cat.jpg", []string{"--carry", "query", "--var", "uid=ü+/=&%"}},
		{"JSON", "json/cat.jpg", []string{"--callback-body-type", "json", "--var", `uid="quoted" \ back`}},
		{"own template", "own/cat.jpg", []string{"--callback-body", `{"bucket":${bucket},"object":${object}}`, "--callback-body-type", "json"}},
		{"quotes and shell characters", `it's "a" $(touch pwned) ; & | > < * ? ~.jpg`, nil},
		{"percent, plus and fragments", "100%/a+b%41#c?d=e&f.jpg", nil},
		{"other scripts", "фото/猫 café 😀.jpg", nil},
		{"dots that curl would resolve", "a/../b/./c..", nil},
		{"directory", "a/folder/", nil},
		{"directory with a content type", "a/folder/", []string{"--content-type", "application/x-directory"}},
		{"two slashes", "a//b.jpg", nil},
		{"brackets that curl would expand", "a[1-3]{x,y}.jpg", nil},
		{"longest", strings.Repeat("k", 1023), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			args := []string{"put", "--bucket", "demo", "--key", tt.key, "--callback-url", w.receiver.URL + "/oss/callback"}
			text, stderr, status := execute(t, w.env, slices.Concat(args, tt.args)...)
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

// TestCurlFailures checks that the text says that a failed callback looks like success to
// curl, and that the signature keeps OSS from accepting a file of the wrong size.
func TestCurlFailures(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "curl")
	w := newWorld(t)
	command := []string{"put", "--bucket", "demo", "--key", "cat.jpg"}
	text, _, _ := execute(t, w.env, append(command, "--callback-url", w.receiver.URL+"/refuse")...)
	if out := runCurl(t, text, "hello world"); !strings.HasSuffix(out, "\n203\n") || !strings.Contains(out, "CallbackFailed") ||
		!strings.Contains(text, "203") {
		t.Errorf("curl printed %q", out)
	}
	text, _, _ = execute(t, w.env, append(command, "--content-length", "7")...)
	if out := runCurl(t, text, "hello world"); !strings.HasSuffix(out, "\n403\n") || !strings.Contains(out, "SignatureDoesNotMatch") {
		t.Errorf("curl printed %q", out)
	}
	// Only the last of five URLs works.
	urls := slices.Repeat([]string{"--callback-url", w.receiver.URL + "/refuse"}, 4)
	text, _, _ = execute(t, w.env, slices.Concat(command, urls, []string{"--callback-url", w.receiver.URL + "/ok"})...)
	if out := runCurl(t, text, "hello world"); out != answer+"\n200\n" {
		t.Errorf("curl printed %q", out)
	}
}

var curlCommand = regexp.MustCompile(`(?ms)^curl .*?FILE '[^\n]*'$`)

// runCurl runs the curl command of a text in a directory that holds only FILE.
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
	sh.Stdin = strings.NewReader(curlCommand.FindString(text)) // as if pasted
	sh.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}
	var remarks strings.Builder
	sh.Stderr = &remarks
	out, _ := sh.Output() // the exit status of curl is not what is tested
	if len(out) == 0 {
		t.Fatalf("curl printed nothing: %s\n%s", remarks.String(), text)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("the shell ran part of the key: %v %v", entries, err)
	}
	return string(out)
}

// TestUploadFromJSON uploads as a program does, with only the URL and the headers of the JSON.
// Then it omits or changes each header in turn.
func TestUploadFromJSON(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, carry := range []string{"header", "query"} {
		u := put(t, w.env, "--bucket", "demo", "--key", carry+"/a b.txt", "--content-type", "text/plain",
			"--meta", "a=1", "--acl", "private",
			"--header", "Cache-Control=no-cache", "--callback-url", w.receiver.URL+"/oss/callback", "--var", "uid=42", "--carry", carry)
		if status, body := send(t, u.Request()); status != http.StatusOK || body != answer {
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
				other := u.Request()
				other.Headers = headers
				if status, body := send(t, other); status < 400 {
					t.Errorf("%s: without the right %s: status %d: %s", carry, name, status, body)
				}
			}
		}
		if len(w.receiver.Callbacks()) != 0 {
			t.Errorf("%s: OSS called back for a rejected upload", carry)
		}
	}
}

// TestFormatCurl runs one program that the command line made; package snippet tests all of
// them.
func TestFormatCurl(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "curl")
	w := newWorld(t)
	program, stderr, status := execute(t, w.env, "put", "--bucket", "demo", "--key", "it's.txt", "--meta", "a=it's $HOME",
		"--callback-url", w.receiver.URL+"/cb", "--format", "curl")
	if status != 0 || stderr != "" {
		t.Fatalf("status %d: %s", status, stderr)
	}
	dir := t.TempDir()
	for name, content := range map[string]string{"upload.sh": program, "FILE": "hello world"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sh := exec.CommandContext(t.Context(), "sh", "upload.sh", "FILE")
	sh.Dir = dir
	if out, err := sh.CombinedOutput(); err != nil || string(out) != answer+"\n" {
		t.Errorf("%v: %s", err, out)
	}
	w.callback(t, "it's.txt")
}
