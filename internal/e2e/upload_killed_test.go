package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"upcall/internal/testing/clitest"
	"upcall/internal/testing/ossfake"
)

// start starts an issuer for a test to kill.
func start(t *testing.T, env clitest.Env, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	cmd, output := command(t, env, args...), new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = output, output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, output
}

// kill ends a program with SIGKILL and checks that it had not ended by itself.
func kill(t *testing.T, cmd *exec.Cmd, output *bytes.Buffer) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	if cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("ended by itself: %v\n%s", err, output)
	}
}

// TestUploadKilled kills the program during an upload and runs the same command again.
func TestUploadKilled(t *testing.T) {
	t.Parallel()
	object := []string{"--bucket", "demo", "--key", "big.bin", "--part-size", "102400"}
	for _, given := range []bool{false, true} {
		t.Run(fmt.Sprintf("manifest given %v", given), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			env := maps.Clone(w.env)
			paths := inDir(t, map[string]int{"big.bin": 1_000_000})
			callback := []string{"--callback-url", w.receiver.URL}
			command := slices.Concat([]string{"upload", paths["big.bin"], "--parallel", "2"}, object, callback)
			if given {
				manifest := filepath.Join(t.TempDir(), "manifest.json")
				create := []string{"multipart", "create", "--size", "1000000", "--manifest", manifest}
				if _, stderr, status := execute(t, env, slices.Concat(create, object, callback)...); status != 0 {
					t.Fatal(stderr)
				}
				command = []string{"upload", paths["big.bin"], "--parallel", "2", "--manifest", manifest}
				env = clitest.Env{"UPCALL_STATE_DIR": env["UPCALL_STATE_DIR"]}
			}
			arrived := make(chan struct{}, 10)
			w.gate.Between(func(rw http.ResponseWriter, r *http.Request, serve http.Handler) {
				if kind := ossfake.Kind(r); kind != "PUT 6" && kind != "PUT 7" {
					serve.ServeHTTP(rw, r)
					return
				}
				arrived <- struct{}{} // both connections wait here, after parts 1 to 5 were sent
				io.Copy(io.Discard, r.Body)
				<-r.Context().Done()
			})
			cmd, output := start(t, env, command...)
			for range 2 {
				<-arrived
			}
			kill(t, cmd, output)
			if names := states(t, w); !given && len(names) != 1 {
				t.Fatalf("states %v", names)
			}
			for _, name := range states(t, w) {
				if info, err := os.Stat(filepath.Join(env["UPCALL_STATE_DIR"], name)); err != nil || info.Mode() != 0o600 {
					t.Errorf("state %v, %v", info.Mode(), err)
				}
			}

			w.gate.Open()
			stdout, stderr, status := execute(t, env, command...)
			if status != 0 || stdout != said(paths["big.bin"]) || !strings.Contains(stderr, "in 10 parts, of which 5 were there already") {
				t.Errorf("status %d: %s%s", status, stdout, stderr)
			}
			if want := []string{"PUT 10", "PUT 6", "PUT 7", "PUT 8", "PUT 9"}; !slices.Equal(w.gate.Puts(), want) {
				t.Errorf("sent %v, want %v", w.gate.Puts(), want)
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

// TestUploadKilledAtTheEnd kills the program after OSS completed the upload and before it
// answers.
func TestUploadKilledAtTheEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	paths := inDir(t, map[string]int{"big.bin": 250_000})
	command := []string{"upload", paths["big.bin"], "--bucket", "demo", "--key", "big.bin", "--part-size", "102400",
		"--callback-url", w.receiver.URL}
	completed := make(chan struct{})
	w.gate.Between(func(rw http.ResponseWriter, r *http.Request, serve http.Handler) {
		if r.Method != http.MethodPost || r.URL.Query().Has("uploads") {
			serve.ServeHTTP(rw, r)
			return
		}
		serve.ServeHTTP(httptest.NewRecorder(), r)
		close(completed)
		<-r.Context().Done()
	})
	cmd, output := start(t, w.env, command...)
	<-completed
	kill(t, cmd, output)
	w.callback(t, "big.bin") // it was carried out

	w.gate.Open()
	stdout, stderr, status := execute(t, w.env, command...)
	const lost = "the answer was lost: OSS was asked to complete the upload, which is over now, " +
		"and the object is stored as in the file (250000 bytes, CRC-64 "
	if status != 1 || stdout != "" || !strings.Contains(stderr, lost) || !strings.Contains(stderr, "the row whose upload_id is ") ||
		len(w.gate.Puts()) != 0 {
		t.Errorf("status %d, sent %v: %s%s", status, w.gate.Puts(), stdout, stderr)
	}
	stdout, stderr, status = execute(t, w.env, command...)
	if status != 0 || stdout != said(paths["big.bin"]) || len(w.gate.Puts()) != 3 {
		t.Errorf("status %d, sent %v: %s%s", status, w.gate.Puts(), stdout, stderr)
	}
}

// expireState changes the manifest in the state to one that expired long ago.
func expireState(t *testing.T, w world, _ string) {
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
}

func shorten(t *testing.T, _ world, path string) {
	if err := os.Truncate(path, 200_000); err != nil {
		t.Fatal(err)
	}
}

// TestUploadBegunAnew resumes uploads whose state is no longer usable.
func TestUploadBegunAnew(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(t *testing.T, w world, path string)
		says   string
		sent   int
	}{
		{"expired", expireState, "in 3 parts, of which 1 were there already", 2},
		{"another size", shorten, "the file has another size now; starting again", 2},
		{"expired and aborted", func(t *testing.T, w world, path string) {
			w.abortAll(t)
			expireState(t, w, path)
		}, "OSS no longer has it; starting again", 3},
		{"broken state", func(t *testing.T, w world, _ string) {
			if err := os.Truncate(filepath.Join(w.env["UPCALL_STATE_DIR"], states(t, w)[0]), 100); err != nil {
				t.Fatal(err)
			}
		}, "uploaded 250000 bytes in 3 parts;", 3},
		{"more than a week ago", func(t *testing.T, w world, _ string) {
			then := time.Now().Add(-8 * 24 * time.Hour)
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
			paths := inDir(t, map[string]int{"big.bin": 250_000})
			command := []string{"upload", paths["big.bin"], "--bucket", "demo", "--key", "big.bin", "--part-size", "102400",
				"--parallel", "1", "--callback-url", w.receiver.URL}
			w.gate.Between(func(rw http.ResponseWriter, r *http.Request, serve http.Handler) {
				if ossfake.Kind(r) == "PUT 2" {
					rw.WriteHeader(http.StatusForbidden)
					return
				}
				serve.ServeHTTP(rw, r)
			})
			if _, stderr, status := execute(t, w.env, command...); status != 1 || !strings.Contains(stderr, "part 2: OSS answered 403") {
				t.Fatalf("status %d: %s", status, stderr)
			}
			w.gate.Open()
			tt.change(t, w, paths["big.bin"])
			stdout, stderr, status := execute(t, w.env, command...)
			if status != 0 || stdout != said(paths["big.bin"]) || !strings.Contains(stderr, tt.says) || len(w.gate.Puts()) != tt.sent ||
				strings.Contains(stderr, "stay in the bucket") {
				t.Errorf("status %d, sent %v: %s%s", status, w.gate.Puts(), stdout, stderr)
			}
			if names := states(t, w); len(names) != 0 {
				t.Errorf("state is left: %v", names)
			}
		})
	}
}

// TestUploadBegunAnewAfterCompletion completes an upload, loses the answer, and makes its state
// unusable. It checks that what may have been reported already is not reported again silently.
func TestUploadBegunAnewAfterCompletion(t *testing.T) {
	t.Parallel()
	const over = "OSS was asked to complete the upload, which is over now"
	tests := []struct {
		name     string
		callback bool
		complete bool // false: OSS is asked, but does not do it
		change   func(t *testing.T, w world, path string)
		list     int // status of the answer to the list of parts; 0 is OSS's own
		status   int
		sent     int // how many parts are sent again
		says     string
		state    int // how many state files are left
	}{
		{"expired", true, true, expireState, 0, 1, 0,
			"the answer was lost: " + over + ", and the object is stored as in the file (250000 bytes, CRC-64 ", 0},
		{"expired, without a callback", false, true, expireState, 0, 0, 0, "but the object is stored as in the file", 0},
		{"another size", true, true, shorten, 0, 0, 2,
			over + ": the file's earlier content is most likely stored, with the upload_id ", 0},
		{"expired, and not completed", true, false, expireState, 0, 0, 0, "of which 3 were there already", 0},
		{"expired, and not allowed to list", true, true, expireState, http.StatusForbidden, 1, 0,
			"does not say whether it did (list of parts: OSS answered 403", 0},
		{"expired, not allowed to list, without a callback", false, true, expireState, http.StatusForbidden, 0, 3,
			"its parts, which stay in the bucket (list of parts: OSS answered 403", 0},
		{"expired, and no answer", true, true, expireState, -1, 1, 0, "run the same command again", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			paths := inDir(t, map[string]int{"big.bin": 250_000})
			command := []string{"upload", paths["big.bin"], "--bucket", "demo", "--key", "big.bin", "--part-size", "102400",
				"--attempts", "1"}
			if tt.callback {
				command = append(command, "--callback-url", w.receiver.URL)
			}
			w.gate.Between(func(rw http.ResponseWriter, r *http.Request, serve http.Handler) {
				if r.Method != http.MethodPost || r.URL.Query().Has("uploads") {
					serve.ServeHTTP(rw, r)
					return
				}
				if tt.complete {
					serve.ServeHTTP(httptest.NewRecorder(), r)
				}
				rw.WriteHeader(http.StatusBadGateway)
			})
			if _, stderr, status := execute(t, w.env, command...); status != 1 ||
				!strings.Contains(stderr, "completion: OSS answered 502") {
				t.Fatalf("status %d: %s", status, stderr)
			}
			w.gate.Open()
			tt.change(t, w, paths["big.bin"])
			if tt.list != 0 {
				refused := false
				w.gate.Between(func(rw http.ResponseWriter, r *http.Request, serve http.Handler) {
					switch {
					case r.Method != http.MethodGet || refused:
						serve.ServeHTTP(rw, r)
					case tt.list < 0:
						panic(http.ErrAbortHandler)
					default:
						refused = true // a new upload may be listed
						rw.WriteHeader(tt.list)
					}
				})
			}
			_, stderr, status := execute(t, w.env, command...)
			if status != tt.status || !strings.Contains(stderr, tt.says) || len(w.gate.Puts()) != tt.sent {
				t.Errorf("status %d, sent %v: %s", status, w.gate.Puts(), stderr)
			}
			if names := states(t, w); len(names) != tt.state {
				t.Errorf("states %v, want %d", names, tt.state)
			}
			w.gate.Open()
			if stdout, stderr, status := execute(t, w.env, command...); tt.state == 0 &&
				(status != 0 || tt.callback != (stdout == said(paths["big.bin"]))) {
				t.Errorf("a third run: status %d: %s%s", status, stdout, stderr)
			}
		})
	}
}
