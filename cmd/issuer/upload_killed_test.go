package main

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
)

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
	if status != 1 || stdout != "" || !strings.Contains(stderr, "the answer was lost: OSS was asked to merge the parts, and the upload is over now, and the object is there as in the file (250000 bytes, CRC-64 ") || !strings.Contains(stderr, "the row whose upload_id is ") || len(g.puts()) != 0 {
		t.Errorf("status %d, sent %v: %s%s", status, g.puts(), stdout, stderr)
	}
	stdout, stderr, status = execute(t, w.env, command...)
	if status != 0 || stdout != answer+"\n" || len(g.puts()) != 3 {
		t.Errorf("status %d, sent %v: %s%s", status, g.puts(), stdout, stderr)
	}
}

// expireState lets the manifest in the state be one of long ago.
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

// TestUploadBegunAnew: what the state holds is of no use any more.
func TestUploadBegunAnew(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(t *testing.T, w world, path string)
		says   string
		sent   int
	}{
		{"expired", expireState, "its URLs have expired; beginning anew", 3},
		{"another size", shorten, "the file has another size now; beginning anew", 2},
		{"expired and aborted", func(t *testing.T, w world, path string) {
			w.abortAll(t)
			expireState(t, w, path)
		}, "its URLs have expired; beginning anew", 3},
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

// TestUploadBegunAnewAfterMerge: the parts were merged, but nobody heard of it, and then
// the upload could not go on. What may be reported already is not reported once more
// without a word.
func TestUploadBegunAnewAfterMerge(t *testing.T) {
	t.Parallel()
	const over = "OSS was asked to merge the parts, and the upload is over now"
	tests := []struct {
		name     string
		callback bool
		merge    bool // false only asks for it
		change   func(t *testing.T, w world, path string)
		abort    int // status of the answer to the abort; 0 is OSS's own
		status   int
		says     string
		state    int // how many are left
	}{
		{"expired", true, true, expireState, 0, 1, "the answer was lost: " + over + ", so the object is most likely stored; look at the receiver for the row whose upload_id is ", 0},
		{"expired, and nobody to call back", false, true, expireState, 0, 0, over + ": what was in the file then is most likely stored, by the upload_id ", 0},
		{"another size", true, true, shorten, 0, 0, over + ": what was in the file then is most likely stored, by the upload_id ", 0},
		{"expired, and not merged", true, false, expireState, 0, 0, "its URLs have expired; beginning anew", 0},
		{"expired, and not allowed to abort", true, true, expireState, http.StatusForbidden, 1, "does not say whether it did (abort: OSS answered 403", 0},
		{"expired, and no answer", true, true, expireState, -1, 1, "run the same command again", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			g := newGate(t, w)
			paths := inFolder(t, map[string]int{"big.bin": 250_000})
			command := []string{"upload", paths["big.bin"], "--bucket", "demo", "--key", "big.bin", "--part-size", "102400", "--attempts", "1"}
			if tt.callback {
				command = append(command, "--callback-url", w.receiver)
			}
			g.keep(func(kind string, rw http.ResponseWriter, r *http.Request) bool {
				if kind != "POST" || r.URL.Query().Has("uploads") {
					return false
				}
				if tt.merge {
					g.proxy.ServeHTTP(httptest.NewRecorder(), r)
				}
				rw.WriteHeader(http.StatusBadGateway)
				return true
			})
			if _, stderr, status := execute(t, w.env, command...); status != 1 || !strings.Contains(stderr, "completion: OSS answered 502") {
				t.Fatalf("status %d: %s", status, stderr)
			}
			g.open()
			tt.change(t, w, paths["big.bin"])
			if tt.abort != 0 {
				g.keep(func(kind string, rw http.ResponseWriter, r *http.Request) bool {
					switch {
					case kind != "DELETE":
						return false
					case tt.abort < 0:
						panic(http.ErrAbortHandler)
					}
					rw.WriteHeader(tt.abort)
					return true
				})
			}
			_, stderr, status := execute(t, w.env, command...)
			if status != tt.status || !strings.Contains(stderr, tt.says) || strings.Contains(stderr, "stay in the bucket") || (status != 0) != (len(g.puts()) == 0) {
				t.Errorf("status %d, sent %v: %s", status, g.puts(), stderr)
			}
			if names := states(t, w); len(names) != tt.state {
				t.Errorf("states %v, want %d", names, tt.state)
			}
			g.open()
			if stdout, stderr, status := execute(t, w.env, command...); tt.state == 0 && (status != 0 || tt.callback != (stdout == answer+"\n")) {
				t.Errorf("once more: status %d: %s%s", status, stdout, stderr)
			}
		})
	}
}
