package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"upcall/internal/cli"
)

// inFolder writes files into a folder of the test's own and returns their paths. The
// content of each is its name, as often as it takes.
func inFolder(t *testing.T, sizes map[string]int) map[string]string {
	t.Helper()
	dir := t.TempDir()
	paths := make(map[string]string)
	for name, size := range sizes {
		paths[name] = filepath.Join(dir, name)
		if err := os.WriteFile(paths[name], bytes.Repeat([]byte(name), size)[:size], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return paths
}

// A gate stands before the emulator and counts what comes through. hold, if it is set,
// sees each request first and may keep it.
type gate struct {
	proxy http.Handler // to the emulator
	mu    sync.Mutex
	seen  []string // "PUT 3", "PUT", "POST"
	hold  func(kind string, w http.ResponseWriter, r *http.Request) (done bool)
}

// newGate puts a gate into the way of a world's uploads, and their state into a folder.
func newGate(t *testing.T, w world) *gate {
	t.Helper()
	target, err := url.Parse(w.env["OSS_ENDPOINT"])
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{proxy: &httputil.ReverseProxy{
		Rewrite:  func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), // interrupted uploads
	}}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		kind := strings.TrimSpace(r.Method + " " + r.URL.Query().Get("partNumber"))
		g.mu.Lock()
		g.seen = append(g.seen, kind)
		hold := g.hold
		g.mu.Unlock()
		if hold == nil || !hold(kind, rw, r) {
			g.proxy.ServeHTTP(rw, r)
		}
	}))
	t.Cleanup(server.Close)
	w.env["OSS_ENDPOINT"] = server.URL
	w.env["UPCALL_STATE_DIR"] = filepath.Join(t.TempDir(), "state")
	return g
}

// keep makes hold see each request from now on.
func (g *gate) keep(hold func(kind string, w http.ResponseWriter, r *http.Request) (done bool)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hold = hold
}

// open lets everything through from now on, and forgets what came before.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hold, g.seen = nil, nil
}

// puts returns the PUTs that came, in order of their names.
func (g *gate) puts() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var puts []string
	for _, kind := range g.seen {
		if strings.HasPrefix(kind, "PUT") {
			puts = append(puts, kind)
		}
	}
	slices.Sort(puts)
	return puts
}

// states returns the names of the files in the state's folder.
func states(t *testing.T, w world) []string {
	t.Helper()
	entries, err := os.ReadDir(w.env["UPCALL_STATE_DIR"])
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func TestUploadOneFile(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 200_000} {
		w := newWorld(t)
		g := newGate(t, w)
		paths := inFolder(t, map[string]int{"cat.jpg": size})
		stdout, stderr, status := execute(t, w.env, "upload", paths["cat.jpg"], "--bucket", "demo", "--key", "photos/猫.jpg",
			"--content-type", "image/jpeg", "--callback-url", w.receiver+"/ok", "--var", "uid=42")
		if status != 0 || stdout != answer+"\n" || !strings.Contains(stderr, fmt.Sprintf("uploaded %d bytes; CRC-64 ", size)) {
			t.Fatalf("status %d: %q, %s", status, stdout, stderr)
		}
		callback := w.callback(t, "photos/猫.jpg")
		if string(callback.Vars["uid"]) != `"42"` || *callback.Size != int64(size) || callback.MimeType != "image/jpeg" || len(g.puts()) != 1 {
			t.Errorf("%+v, %v", callback, g.puts())
		}
		if names := states(t, w); len(names) != 0 {
			t.Errorf("state is kept of a single PUT: %v", names)
		}
	}
}

// TestUploadSeveralFiles prints the answers in the order of the files, whichever is
// answered first.
func TestUploadSeveralFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := newGate(t, w)
	receiver := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		form, _ := url.ParseQuery(string(body))
		text, _ := json.MarshalIndent(map[string]string{"object": form.Get("object")}, "", "  ")
		rw.Header().Set("Content-Length", fmt.Sprint(len(text)))
		rw.Write(text)
	}))
	t.Cleanup(receiver.Close)
	paths := inFolder(t, map[string]int{"a.bin": 250_000, "b.bin": 10, "c.bin": 0, "d.bin": 102_400})
	second := make(chan struct{})
	g.keep(func(_ string, _ http.ResponseWriter, r *http.Request) bool {
		switch {
		case strings.Contains(r.URL.Path, "b.bin"):
			defer close(second)
		case strings.Contains(r.URL.Path, "a.bin") && r.Method == http.MethodGet:
			<-second // a is the last to be ready
		}
		return false
	})
	stdout, stderr, status := execute(t, w.env, "upload", paths["a.bin"], paths["b.bin"], paths["c.bin"], paths["d.bin"],
		"--bucket", "demo", "--key", "in/", "--callback-url", receiver.URL, "--part-size", "102400")
	if want := `{"object":"in/a.bin"}` + "\n" + `{"object":"in/b.bin"}` + "\n" + `{"object":"in/c.bin"}` + "\n" + `{"object":"in/d.bin"}` + "\n"; status != 0 || stdout != want {
		t.Fatalf("status %d: %q\n%s", status, stdout, stderr)
	}
	if want := []string{"PUT", "PUT", "PUT", "PUT 1", "PUT 2", "PUT 3"}; !slices.Equal(g.puts(), want) {
		t.Errorf("sent %v, want %v", g.puts(), want)
	}
	if names := states(t, w); len(names) != 0 {
		t.Errorf("state is left: %v", names)
	}
}

// TestUploadSomeFail: the others are uploaded all the same.
func TestUploadSomeFail(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := newGate(t, w)
	g.keep(func(_ string, rw http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "b.bin") {
			return false
		}
		rw.WriteHeader(http.StatusForbidden)
		return true
	})
	paths := inFolder(t, map[string]int{"a.bin": 10, "b.bin": 10, "c.bin": 10})
	stdout, stderr, status := execute(t, w.env, "upload", paths["a.bin"], paths["b.bin"], paths["c.bin"], "--bucket", "demo", "--key", "in/", "--callback-url", w.receiver)
	if status != 1 || stdout != answer+"\n"+answer+"\n" || strings.Count(stderr, "403") != 1 || !strings.Contains(stderr, "b.bin: upload: OSS answered 403") {
		t.Errorf("status %d: %q\n%s", status, stdout, stderr)
	}
}

// TestUploadByManifest needs no credentials.
func TestUploadByManifest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	newGate(t, w)
	paths := inFolder(t, map[string]int{"cat.jpg": 250_000})
	bare := map[string]string{"UPCALL_STATE_DIR": w.env["UPCALL_STATE_DIR"], "UPCALL_BUCKET": "set-for-other-commands"}
	object := []string{"--bucket", "demo", "--key", "cat.jpg", "--callback-url", w.receiver}
	for name, make := range map[string][]string{
		"put":                       slices.Concat([]string{"put", "--format", "json"}, object),
		"put of the exact size":     slices.Concat([]string{"put", "--format", "json", "--content-length", "250000", "--carry", "query"}, object),
		"multipart":                 slices.Concat([]string{"multipart", "create", "--size", "250000", "--part-size", "102400"}, object),
		"multipart of unknown size": slices.Concat([]string{"multipart", "create", "--parts", "10", "--part-size", "102400"}, object),
	} {
		manifest, stderr, status := execute(t, w.env, make...)
		if status != 0 {
			t.Fatalf("%s: %s", name, stderr)
		}
		var stdout, remarks bytes.Buffer
		err := run(t.Context(), []string{"upload", paths["cat.jpg"], "--manifest", "-"}, func(name string) string { return bare[name] },
			cli.Stdio{In: strings.NewReader(manifest), Out: &stdout, Err: &remarks})
		if err != nil || stdout.String() != answer+"\n" {
			t.Errorf("%s: %v: %s%s", name, err, stdout.String(), remarks.String())
		}
		w.callback(t, "cat.jpg")
		if names := states(t, w); len(names) != 0 {
			t.Errorf("%s: state is left: %v", name, names)
		}
	}

	// A URL alone, in a file. Without a callback nothing is printed.
	u := executeJSON(t, w.env, "put", "--bucket", "demo", "--key", "cat.jpg")
	file := filepath.Join(t.TempDir(), "url")
	if err := os.WriteFile(file, []byte(u.URL+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if stdout, stderr, status := execute(t, bare, "upload", paths["cat.jpg"], "--manifest", file); status != 0 || stdout != "" {
		t.Errorf("status %d: %s%s", status, stdout, stderr)
	}
}

func TestUploadCallbackFailed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	newGate(t, w)
	paths := inFolder(t, map[string]int{"cat.jpg": 250_000})
	for _, partSize := range []string{"250000", "102400"} {
		stdout, stderr, status := execute(t, w.env, "upload", paths["cat.jpg"], "--bucket", "demo", "--key", "cat.jpg", "--callback-url", w.receiver+"/refuse", "--part-size", partSize)
		if status != 1 || stdout != "" || !strings.Contains(stderr, "cat.jpg: the object is stored, but not recorded: OSS could not call back, and answered 203 CallbackFailed: Error status : 403. (") {
			t.Errorf("status %d: %s%s", status, stdout, stderr)
		}
		if names := states(t, w); len(names) != 0 {
			t.Errorf("state is left: %v", names)
		}
	}
}
