package e2e

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"
)

// folder makes files in a new folder, each with its name as its content.
func folder(t *testing.T, names ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, name := range names {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(name), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// sentKeys returns the keys that callbacks told of, with duplicates.
func sentKeys(t *testing.T, w world) []string {
	t.Helper()
	var keys []string
	for _, c := range w.receiver.Callbacks() {
		body := c.Body
		for pair := range strings.SplitSeq(body, "&") {
			if key, ok := strings.CutPrefix(pair, "object="); ok {
				keys = append(keys, strings.ReplaceAll(key, "%2F", "/"))
			}
		}
	}
	slices.Sort(keys)
	return keys
}

// delete deletes an object.
func (w world) delete(t *testing.T, key string) {
	t.Helper()
	if _, err := w.client().DeleteObject(t.Context(), &sdk.DeleteObjectRequest{Bucket: sdk.Ptr("demo"), Key: &key}); err != nil {
		t.Fatal(err)
	}
}

// TestUploadFolder uploads a folder in which some entries cannot be uploaded. All others are.
func TestUploadFolder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	long := strings.Repeat("d/"+strings.Repeat("x", 200)+"/", 6) + "long"
	root := folder(t, "a.txt", "sub/b.txt", "sub/deep/c.txt", long, "not\xffutf8", ".hidden")
	if err := errors.Join(os.WriteFile(filepath.Join(root, "empty"), nil, 0o600), os.Symlink("/etc/hostname", filepath.Join(root, "link")),
		os.Mkdir(filepath.Join(root, "nothing"), 0o700)); err != nil {
		t.Fatal(err)
	}
	args := []string{"upload", "-r", root, "--bucket", "demo", "--key", "in/", "--callback-url", w.receiver.URL}
	stdout, stderr, status := execute(t, w.env, args...)
	good := []string{".hidden", "a.txt", "empty", "sub/b.txt", "sub/deep/c.txt"}
	var paths, keys []string
	for _, name := range good {
		paths, keys = append(paths, filepath.Join(root, name)), append(keys, "in/"+name)
	}
	if status != 1 || stdout != said(paths...) || !slices.Equal(sentKeys(t, w), keys) {
		t.Fatalf("status %d, reported %v: %s%s", status, sentKeys(t, w), stdout, stderr)
	}
	for _, want := range []string{"/link: left out: it is a symbolic link", `\xffutf8": key: is not UTF-8`, "long: key: has 1020"} {
		if want = strings.Replace(want, "1020", fmt.Sprint(len("in/"+long)), 1); !strings.Contains(stderr, want) {
			t.Errorf("it does not say %q: %s", want, stderr)
		}
	}

	// Again, with a change, a new file and one whose object is gone.
	if err := errors.Join(os.WriteFile(filepath.Join(root, "a.txt"), []byte("A.txt"), 0o600),
		os.WriteFile(filepath.Join(root, "new.txt"), []byte("new"), 0o600)); err != nil {
		t.Fatal(err)
	}
	w.delete(t, "in/empty")
	w.gate.Open()
	stdout, stderr, status = execute(t, w.env, args...)
	if want := said(slices.Insert(slices.Clone(paths), 3, filepath.Join(root, "new.txt"))...); status != 1 || stdout != want || len(w.gate.Puts()) != 3 ||
		!strings.Contains(stderr, "empty: was uploaded before, but the object is gone; uploading it again") ||
		strings.Count(stderr, "and has not changed; --again") != 3 {
		t.Errorf("status %d, sent %v: %s%s", status, w.gate.Puts(), stdout, stderr)
	}
	if got := w.stored(t, "in/a.txt"); got != "A.txt" {
		t.Errorf("stored %q", got)
	}
}

// TestUploadFolderToRoot gives the files keys without a prefix.
func TestUploadFolderToRoot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := folder(t, "a", "b/c", `\d`)
	_, stderr, status := execute(t, w.env, "upload", "--recursive", root+"/", "--bucket", "demo", "--key", "/", "--callback-url", w.receiver.URL)
	if want := []string{"a", "b/c"}; status != 1 || !slices.Equal(sentKeys(t, w), want) || !strings.Contains(stderr, "key: starts with") {
		t.Errorf("status %d, reported %v: %s", status, sentKeys(t, w), stderr)
	}
	if _, stderr, status := execute(t, w.env, "upload", "-r", t.TempDir(), "--bucket", "demo", "--key", "/"); status != 0 ||
		!strings.Contains(stderr, "nothing was uploaded") {
		t.Errorf("an empty folder: status %d: %s", status, stderr)
	}
}

// TestUploadAgain runs a command again. Only where it would do the same is nothing sent.
func TestUploadAgain(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(t *testing.T, w world, path string) (args []string)
		sent   int
		says   string
	}{
		"the same": {func(*testing.T, world, string) []string { return nil }, 0, "and has not changed"},
		"other credentials": {func(_ *testing.T, w world, _ string) []string {
			return []string{"--credentials-process", `echo '{"AccessKeyId":"ak","AccessKeySecret":"hunter-sk"}'`}
		}, 0, "and has not changed"},
		"another expiry":   {func(*testing.T, world, string) []string { return []string{"--expires", "2h"} }, 0, "and has not changed"},
		"other parts":      {func(*testing.T, world, string) []string { return []string{"--part-size", "102400"} }, 0, "and has not changed"},
		"told to":          {func(*testing.T, world, string) []string { return []string{"--again"} }, 1, "uploaded 10 bytes"},
		"another type":     {func(*testing.T, world, string) []string { return []string{"--content-type", "a/b"} }, 1, "uploaded 10 bytes"},
		"another variable": {func(*testing.T, world, string) []string { return []string{"--var", "uid=7"} }, 1, "uploaded 10 bytes"},
		"another key":      {func(*testing.T, world, string) []string { return []string{"--key", "out/"} }, 1, "uploaded 10 bytes"},
		"another state":    {func(t *testing.T, _ world, _ string) []string { return []string{"--state-dir", t.TempDir()} }, 1, "uploaded 10 bytes"},
		"another object": {func(t *testing.T, w world, path string) []string {
			other := folder(t, filepath.Base(path))
			if _, stderr, status := execute(t, w.env, "upload", other+"/a.bin", "--bucket", "demo", "--key", "in/"); status != 0 {
				t.Fatal(stderr)
			}
			return nil
		}, 1, "another object has taken its place"},
		"not allowed to look": {func(_ *testing.T, w world, _ string) []string {
			w.gate.Between(func(rw http.ResponseWriter, r *http.Request, serve http.Handler) {
				if r.Method == http.MethodHead {
					rw.WriteHeader(http.StatusForbidden)
					return
				}
				serve.ServeHTTP(rw, r)
			})
			return nil
		}, 0, "note: it is not known whether what was uploaded before is still there"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			path := inDir(t, map[string]int{"a.bin": 10})["a.bin"]
			args := []string{"upload", path, "--bucket", "demo", "--key", "in/", "--callback-url", w.receiver.URL}
			if stdout, stderr, status := execute(t, w.env, args...); status != 0 || stdout != said(path) {
				t.Fatalf("status %d: %s%s", status, stdout, stderr)
			}
			w.gate.Open()
			args = slices.Concat(args, tt.change(t, w, path))
			if len(w.gate.Puts()) > 0 {
				w.gate.Open()
			}
			stdout, stderr, status := execute(t, w.env, args...)
			if status != 0 || stdout != said(path) || len(w.gate.Puts()) != tt.sent || !strings.Contains(stderr, tt.says) {
				t.Errorf("status %d, sent %v: %s%s", status, w.gate.Puts(), stdout, stderr)
			}
		})
	}
}

// TestUploadAgainNotRecorded checks that an upload whose callback failed counts as not done.
func TestUploadAgainNotRecorded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path := inDir(t, map[string]int{"a.bin": 10})["a.bin"]
	for range 2 {
		w.gate.Open()
		stdout, stderr, status := execute(t, w.env, "upload", path, "--bucket", "demo", "--key", "in/", "--callback-url", w.receiver.URL+"/refuse")
		if status != 1 || stdout != "" || len(w.gate.Puts()) != 1 || !strings.Contains(stderr, "not recorded") {
			t.Errorf("status %d, sent %v: %s%s", status, w.gate.Puts(), stdout, stderr)
		}
	}
}

// TestUploadFolderKilled kills the upload of a folder again and again while OSS answers 503 and resets
// connections, until it ends by itself. Each file is stored as it is, and a file whose answer had come
// before a kill is not sent again.
func TestUploadFolderKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var names []string
	for i := range 40 {
		names = append(names, fmt.Sprintf("%d/%02d.txt", i%4, i))
	}
	root := folder(t, names...)
	args := []string{"upload", "-r", root, "--bucket", "demo", "--key", "in/", "--callback-url", w.receiver.URL, "--parallel", "2"}
	var mu sync.Mutex
	puts, reached := 0, make(chan struct{}, 1000)
	w.gate.Between(func(rw http.ResponseWriter, r *http.Request, serve http.Handler) {
		if r.Method != http.MethodPut {
			serve.ServeHTTP(rw, r)
			return
		}
		mu.Lock()
		puts++
		n := puts
		mu.Unlock()
		switch {
		case n%7 == 3:
			rw.Header().Set("Retry-After", "0")
			rw.WriteHeader(http.StatusServiceUnavailable)
		case n%11 == 5:
			io.Copy(io.Discard, r.Body)
			panic(http.ErrAbortHandler)
		default:
			serve.ServeHTTP(rw, r)
		}
		if n%10 == 0 {
			reached <- struct{}{}
		}
	})
	kills := 0
	for ; kills < 3; kills++ {
		cmd, output := start(t, w.env, args...)
		<-reached
		kill(t, cmd, output)
	}
	stdout, stderr, status := execute(t, w.env, args...)
	var paths, keys []string
	slices.SortFunc(names, strings.Compare)
	for _, name := range names {
		paths, keys = append(paths, filepath.Join(root, name)), append(keys, "in/"+name)
		if got := w.stored(t, "in/"+name); got != name {
			t.Errorf("%s is stored as %q", name, got)
		}
	}
	if status != 0 || stdout != said(paths...) {
		t.Errorf("status %d: %s%s", status, stdout, stderr)
	}
	reported := sentKeys(t, w)
	if distinct := slices.Compact(slices.Clone(reported)); !slices.Equal(distinct, keys) {
		t.Errorf("reported %v", distinct)
	}
	// At a kill, at most two files are under way, and each may have been reported.
	if len(reported) > len(keys)+2*kills {
		t.Errorf("%d reports of %d files after %d kills: %v", len(reported), len(keys), kills, reported)
	}
}

// TestUploadLimited checks that all parallel uploads share the limit.
func TestUploadLimited(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	paths := inDir(t, map[string]int{"a.bin": 150_000, "b.bin": 150_000})
	env := maps.Clone(w.env)
	env["UPCALL_LIMIT_RATE"] = "200k"
	began := time.Now()
	_, stderr, status := execute(t, env, "upload", paths["a.bin"], paths["b.bin"], "--bucket", "demo", "--key", "in/")
	if took := time.Now().Sub(began).Seconds(); status != 0 || took < (300-25)/200. {
		t.Errorf("status %d after %.2f s: %s", status, took, stderr)
	}
	if kinds := w.gate.Count("PUT"); kinds != 2 {
		t.Errorf("%d PUTs", kinds)
	}
}
