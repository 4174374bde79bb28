package snippet_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"upcall/internal/issue"
	"upcall/internal/oss"
	"upcall/internal/snippet"
	"upcall/internal/testing/toolchain"
)

// A recipe is how a language's program is built and run, in the folder it is in.
type recipe struct {
	needs string   // name of the tool that tests need for it; empty for Go
	file  string   // name of the program's file
	build []string // nil where there is nothing to build
	run   []string // the file to upload comes behind
}

var recipes = map[string]recipe{
	"curl":    {"curl", "upload.sh", nil, []string{"sh", "upload.sh"}},
	"python":  {"python", "upload.py", nil, []string{"/usr/bin/python3", "-I", "upload.py"}},
	"java":    {"java", "Upload.java", []string{"javac", "-Xlint:all", "-Werror", "Upload.java"}, java},
	"go":      {"", "upload.go", []string{"go", "build", "-o", "upload", "upload.go"}, []string{"./upload"}},
	"node":    {"node", "upload.mjs", nil, []string{"node", "upload.mjs"}},
	"csharp":  {"csharp", "Upload.cs", []string{"mcs", "-warnaserror", "-r:System.Net.Http", "Upload.cs"}, []string{"mono", "Upload.exe"}},
	"cpp":     {"cpp", "upload.cpp", gcc, []string{"./upload"}},
	"android": {"java", "Upload.java", []string{"javac", "--release", "8", "-Xlint:all,-options", "-Werror", "Upload.java"}, java},
	"php":     {"php", "upload.php", nil, []string{"php", "-d", "error_reporting=-1", "-d", "display_errors=stderr", "upload.php"}},
}

var gcc = []string{"g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-o", "upload", "upload.cpp", "-lcurl"}

// java compiles little: the programs are short-lived.
var java = []string{"java", "-XX:TieredStopAtLevel=1", "-cp", ".", "Upload"}

// building bounds how many compilers run at once.
var building = make(chan struct{}, 2)

// TestPrograms runs each program through all that can become of an upload.
func TestPrograms(t *testing.T) {
	t.Parallel()
	for _, language := range snippet.Languages() {
		if language == "browser" {
			continue // see TestBrowser
		}
		recipe, ok := recipes[language]
		if !ok {
			t.Errorf("no recipe runs the program for %s", language)
		}
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			if recipe.needs != "" {
				toolchain.Need(t, recipe.needs)
			}
			t.Run("all headers", func(t *testing.T) { testAllHeaders(t, language, recipe) })
			t.Run("no headers", func(t *testing.T) { testNoHeaders(t, language, recipe) })
		})
	}
}

func testAllHeaders(t *testing.T, language string, recipe recipe) {
	content := strings.Repeat("\x00\r\n\xff\x1a é", 30000)
	sum := md5.Sum([]byte(content))
	w := newWorld(t)
	upload := awkward(content, base64.StdEncoding.EncodeToString(sum[:]))
	p := build(t, recipe, w.render(language, upload))
	file := write(t, p.dir, "it's [a] {file} $x & é.txt", content)

	p.wantAnswer(file)
	w.wantCallback(upload.Object.Key, int64(len(content)))
	w.wantObject(upload.Object, content)

	w.refused(func() { p.wantFailure(file, "203 CallbackFailed: the file is stored", "<Code>CallbackFailed</Code>") })

	p.wantFailure(write(t, p.dir, "other size", "x"), "403", "<Code>SignatureDoesNotMatch</Code>")
	if len(w.receiver.Callbacks()) != 0 {
		t.Error("a refused upload was called back")
	}
}

// TestDotAtTheEnd: a client that takes a key with "." or ".." at its end for a folder would
// upload to another key.
func TestDotAtTheEnd(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "curl")
	w := newWorld(t)
	for _, key := range []string{"a/..", "a/.", "..", ".", "a/b/", "a/...", "a/.b"} {
		for _, contentType := range []string{"", "text/plain"} {
			upload := issue.Request{Object: oss.Object{Key: key, ContentType: contentType}}
			p := build(t, recipes["curl"], w.render("curl", upload))
			p.wantAnswer(write(t, p.dir, "file", "hello"))
			w.wantCallback(key, 5)
			w.wantObject(upload.Object, "hello")
		}
	}
}

func testNoHeaders(t *testing.T, language string, recipe recipe) {
	w := newWorld(t)
	upload := issue.Request{Object: oss.Object{Key: "plain"}}
	if snippet.Check(language, upload.Object.Key, "") != nil {
		upload.Object.ContentType = "application/octet-stream"
	}
	p := build(t, recipe, w.render(language, upload))
	for _, content := range []string{"", "hello"} {
		p.wantAnswer(write(t, p.dir, "file", content))
		w.wantCallback(upload.Object.Key, int64(len(content)))
		w.wantObject(upload.Object, content)
	}
	file := filepath.Join(p.dir, "file")
	p.wantFailure("", "usage: ")
	p.wantFailure(filepath.Join(p.dir, "missing"), "")
	p.wantFailure(p.dir, "")

	w.late.Store(true)
	p.wantFailure(file, "403", "<Code>AccessDenied</Code>")
	w.oss.Close()
	p.wantFailure(file, "")
	if len(w.receiver.Callbacks()) != 0 {
		t.Error("a refused upload was called back")
	}
}

// A built program is ready to be run.
type built struct {
	t    *testing.T
	dir  string
	args []string
}

func build(t *testing.T, recipe recipe, program string) built {
	t.Helper()
	p := built{t, t.TempDir(), recipe.run}
	write(t, p.dir, recipe.file, program)
	if recipe.build != nil {
		building <- struct{}{}
		defer func() { <-building }()
		if stdout, stderr, err := p.execute(recipe.build); err != nil || stdout+stderr != "" {
			t.Fatalf("%v\n%s%s\n%s", err, stdout, stderr, program)
		}
	}
	return p
}

func write(t *testing.T, dir, name, content string) (path string) {
	t.Helper()
	path = filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// execute runs a command with nothing of the test's environment that could change it, and
// with a home that nothing can be kept in.
func (p built) execute(args []string) (stdout, stderr string, err error) {
	ctx, cancel := context.WithTimeout(p.t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = p.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/dev/null", "LC_ALL=C.UTF-8",
		"GOCACHE=" + goCache(p.t), "GOTOOLCHAIN=local", "GOPROXY=off"}
	var out, remarks bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &remarks
	err = cmd.Run()
	return out.String(), remarks.String(), err
}

func goCache(t *testing.T) string {
	if dir := os.Getenv("GOCACHE"); dir != "" {
		return dir
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "go-build")
}

func (p built) upload(file string) (stdout, stderr string, status int) {
	p.t.Helper()
	args := slices.Clone(p.args)
	if file != "" {
		args = append(args, file)
	}
	stdout, stderr, err := p.execute(args)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return stdout, stderr, exit.ExitCode()
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return stdout, stderr, 0
}

// wantAnswer runs the program, which must print the callback's answer and nothing else.
func (p built) wantAnswer(file string) {
	p.t.Helper()
	if stdout, stderr, status := p.upload(file); status != 0 || stdout != answer+"\n" || stderr != "" {
		p.t.Errorf("status %d\n%s%s", status, stdout, stderr)
	}
}

// wantFailure runs the program, which must end with 1 and say these things on stderr. A
// crash is no failure in this sense.
func (p built) wantFailure(file string, says ...string) {
	p.t.Helper()
	stdout, stderr, status := p.upload(file)
	if status != 1 || stdout != "" || stderr == "" {
		p.t.Errorf("%s: status %d, stdout %q, stderr %q", file, status, stdout, stderr)
	}
	for _, text := range append(says, "") {
		if !strings.Contains(stderr, text) {
			p.t.Errorf("%s: stderr does not say %q: %s", file, text, stderr)
		}
	}
	for _, trace := range []string{"Traceback", "\tat ", "  at ", "    at ", "goroutine ", "Unhandled", "Warning:", "Notice:"} {
		if strings.Contains(stderr, trace) {
			p.t.Errorf("%s: the program crashed: %s", file, stderr)
		}
	}
}
