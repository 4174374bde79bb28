package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
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
			stdio{strings.NewReader(manifest), &stdout, &remarks})
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
		if status != 1 || stdout != "" || !strings.Contains(stderr, "cat.jpg: the object is stored, but not recorded: OSS could not call back: Error status : 403. (") {
			t.Errorf("status %d: %s%s", status, stdout, stderr)
		}
		if names := states(t, w); len(names) != 0 {
			t.Errorf("state is left: %v", names)
		}
	}
}

// child starts the program in a process of its own.
func child(t *testing.T, env map[string]string, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = []string{asIssuer + "=1"}
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, &output
}

// TestUploadKilled kills the program amid an upload and runs the same command again.
func TestUploadKilled(t *testing.T) {
	t.Parallel()
	object := []string{"--bucket", "demo", "--key", "big.bin", "--part-size", "102400"}
	for _, given := range []bool{false, true} {
		t.Run(fmt.Sprintf("manifest given %v", given), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			g := newGate(t, w)
			env := maps.Clone(w.env)
			paths := inFolder(t, map[string]int{"big.bin": 1_000_000})
			callback := []string{"--callback-url", w.receiver}
			command := slices.Concat([]string{"upload", paths["big.bin"], "--parallel", "2"}, object, callback)
			if given {
				manifest := filepath.Join(t.TempDir(), "manifest.json")
				if _, stderr, status := execute(t, env, slices.Concat([]string{"multipart", "create", "--size", "1000000", "--manifest", manifest}, object, callback)...); status != 0 {
					t.Fatal(stderr)
				}
				command = []string{"upload", paths["big.bin"], "--parallel", "2", "--manifest", manifest}
				env = map[string]string{"UPCALL_STATE_DIR": env["UPCALL_STATE_DIR"]}
			}
			arrived := make(chan struct{}, 10)
			g.keep(func(kind string, _ http.ResponseWriter, r *http.Request) bool {
				if kind != "PUT 6" && kind != "PUT 7" {
					return false
				}
				arrived <- struct{}{} // now both connections wait here, and 1 to 5 are through
				io.Copy(io.Discard, r.Body)
				<-r.Context().Done()
				return true
			})
			cmd, output := child(t, env, command...)
			for range 2 {
				<-arrived
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err == nil || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("ended by itself: %v\n%s", err, output)
			}
			if names := states(t, w); !given && len(names) != 1 {
				t.Fatalf("states %v", names)
			}
			for _, name := range states(t, w) {
				if info, err := os.Stat(filepath.Join(env["UPCALL_STATE_DIR"], name)); err != nil || info.Mode() != 0o600 {
					t.Errorf("state %v, %v", info.Mode(), err)
				}
			}

			g.open()
			stdout, stderr, status := execute(t, env, command...)
			if status != 0 || stdout != answer+"\n" || !strings.Contains(stderr, "in 10 parts, of which 5 were there already") {
				t.Errorf("status %d: %s%s", status, stdout, stderr)
			}
			if want := []string{"PUT 10", "PUT 6", "PUT 7", "PUT 8", "PUT 9"}; !slices.Equal(g.puts(), want) {
				t.Errorf("sent %v, want %v", g.puts(), want)
			}
			if size := *w.callback(t, "big.bin").Size; size != 1_000_000 {
				t.Errorf("%d bytes are stored", size)
			}
			if names := states(t, w); len(names) != 0 {
				t.Errorf("state is left: %v", names)
			}
		})
	}
}

// TestUploadKilledAtTheEnd kills the program after OSS was asked to merge the parts, and
// before it could say that it did.
func TestUploadKilledAtTheEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := newGate(t, w)
	paths := inFolder(t, map[string]int{"big.bin": 250_000})
	command := []string{"upload", paths["big.bin"], "--bucket", "demo", "--key", "big.bin", "--part-size", "102400", "--callback-url", w.receiver}
	merged := make(chan struct{})
	g.keep(func(kind string, _ http.ResponseWriter, r *http.Request) bool {
		if kind != "POST" || r.URL.Query().Has("uploads") {
			return false
		}
		g.proxy.ServeHTTP(httptest.NewRecorder(), r)
		close(merged)
		<-r.Context().Done()
		return true
	})
	cmd, output := child(t, w.env, command...)
	<-merged
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal(output)
	}
	w.callback(t, "big.bin") // it was carried out

	g.open()
	stdout, stderr, status := execute(t, w.env, command...)
	if status != 1 || stdout != "" || !strings.Contains(stderr, "the answer was lost: OSS was asked to merge the parts, and the upload is over now, so the object is most likely stored") || len(g.puts()) != 0 {
		t.Errorf("status %d, sent %v: %s%s", status, g.puts(), stdout, stderr)
	}
	stdout, stderr, status = execute(t, w.env, command...)
	if status != 0 || stdout != answer+"\n" || len(g.puts()) != 3 {
		t.Errorf("status %d, sent %v: %s%s", status, g.puts(), stdout, stderr)
	}
}

// TestUploadBegunAnew: what the state holds is of no use any more.
func TestUploadBegunAnew(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(t *testing.T, w world, path string)
		says   string
		sent   int
	}{
		{"expired", func(t *testing.T, w world, _ string) {
			file := filepath.Join(w.env["UPCALL_STATE_DIR"], states(t, w)[0])
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var state map[string]any
			if err := json.Unmarshal(text, &state); err != nil {
				t.Fatal(err)
			}
			state["manifest"].(map[string]any)["expires_at"] = "2020-01-01T00:00:00Z"
			if text, err = json.Marshal(state); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "its URLs have expired; beginning anew", 3},
		{"another size", func(t *testing.T, _ world, path string) {
			if err := os.Truncate(path, 200_000); err != nil {
				t.Fatal(err)
			}
		}, "the file has another size now; beginning anew", 2},
		{"broken state", func(t *testing.T, w world, _ string) {
			if err := os.Truncate(filepath.Join(w.env["UPCALL_STATE_DIR"], states(t, w)[0]), 100); err != nil {
				t.Fatal(err)
			}
		}, "uploaded 250000 bytes in 3 parts;", 3},
		{"a week and a day ago", func(t *testing.T, w world, _ string) {
			then := time.Now().Add(-stateKept - time.Hour)
			if err := os.Chtimes(filepath.Join(w.env["UPCALL_STATE_DIR"], states(t, w)[0]), then, then); err != nil {
				t.Fatal(err)
			}
		}, "uploaded 250000 bytes in 3 parts;", 3},
		{"the same", func(*testing.T, world, string) {}, "in 3 parts, of which 1 were there already", 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			g := newGate(t, w)
			paths := inFolder(t, map[string]int{"big.bin": 250_000})
			command := []string{"upload", paths["big.bin"], "--bucket", "demo", "--key", "big.bin", "--part-size", "102400", "--parallel", "1", "--callback-url", w.receiver}
			g.keep(func(kind string, rw http.ResponseWriter, _ *http.Request) bool {
				if kind != "PUT 2" {
					return false
				}
				rw.WriteHeader(http.StatusForbidden)
				return true
			})
			if _, stderr, status := execute(t, w.env, command...); status != 1 || !strings.Contains(stderr, "part 2: OSS answered 403") {
				t.Fatalf("status %d: %s", status, stderr)
			}
			g.open()
			tt.change(t, w, paths["big.bin"])
			stdout, stderr, status := execute(t, w.env, command...)
			if status != 0 || stdout != answer+"\n" || !strings.Contains(stderr, tt.says) || len(g.puts()) != tt.sent || strings.Contains(stderr, "stay in the bucket") {
				t.Errorf("status %d, sent %v: %s%s", status, g.puts(), stdout, stderr)
			}
			if names := states(t, w); len(names) != 0 {
				t.Errorf("state is left: %v", names)
			}
		})
	}
}
