package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"upcall/internal/manifest"
	"upcall/internal/testing/toolchain"
)

// backEnds are the programs on the page, by the word after the language.
var backEnds = regexp.MustCompile("(?ms)^```(js node|go backend)\n(.*?)^```$")

// TestWebPageBackEnds runs the back ends of docs/web.md in front of an issuer, and uploads as a page would.
func TestWebPageBackEnds(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/web.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := backEnds.FindAllStringSubmatch(string(page), -1)
	if len(blocks) != 2 {
		t.Fatalf("%d back ends on the page, want 2", len(blocks))
	}
	for _, block := range blocks {
		t.Run(block[1], func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			file, command := filepath.Join(dir, "backend.mjs"), []string{"node"}
			if block[1] == "go backend" {
				file, command = filepath.Join(dir, "main.go"), []string{"go", "run"}
			} else {
				toolchain.Need(t, "node")
			}
			if err := os.WriteFile(file, []byte(block[2]), 0o600); err != nil {
				t.Fatal(err)
			}
			if block[1] == "go backend" { // so that the process is the program itself
				program := filepath.Join(dir, "backend")
				if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, file).CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				file, command = "", []string{program}
			}
			s := newSite(t)
			useBackEnd(t, s, startBackEnd(t, s, command, file))
		})
	}
}

// startBackEnd starts a program and returns its address.
func startBackEnd(t *testing.T, s *site, command []string, file string) string {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(free.Addr().String())
	free.Close()
	if file != "" {
		command = append(command, file)
	}
	program := exec.CommandContext(t.Context(), command[0], command[1:]...)
	program.Env = append(os.Environ(), "ISSUER="+s.url, "ISSUER_KEY="+s.apiKey, "PORT="+port)
	var said bytes.Buffer
	program.Stdout, program.Stderr = &said, &said
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = program.Process.Kill()
		_ = program.Wait()
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			conn.Close()
			return "http://127.0.0.1:" + port
		}
		if time.Now().After(deadline) {
			_ = program.Process.Kill()
			_ = program.Wait()
			t.Fatalf("the back end does not listen: %s", said.String())
		}
	}
}

func useBackEnd(t *testing.T, s *site, at string) {
	t.Helper()
	ask := func(method, path, cookie, body string) (status int, text []byte) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, at+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Idempotency-Key", "a")
		if cookie != "" {
			r.Header.Set("Cookie", "session="+cookie)
		}
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if text, err = io.ReadAll(response.Body); err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, text
	}
	// The page may say who the user is, but does not decide it.
	const body = `{"key":"inbox/a.txt","content_type":"text/plain","size":5,"vars":{"uid":"somebody else","album":"7"}}`
	status, text := ask(http.MethodPost, "/api/v1/uploads", "user42", body)
	var issued manifest.Upload
	if err := json.Unmarshal(text, &issued); err != nil || status != http.StatusCreated {
		t.Fatalf("%d %s", status, text)
	}
	if _, again := ask(http.MethodPost, "/api/v1/uploads", "user42", body); !bytes.Equal(again, text) {
		t.Errorf("the request again: %s", again)
	}
	for name, tt := range map[string]struct {
		method, path, cookie, body string
		status                     int
	}{
		"no session":        {http.MethodPost, "/api/v1/uploads", "", body, 401},
		"another path":      {http.MethodGet, "/api/v1/policy", "user42", "", 404},
		"revoking":          {http.MethodDelete, "/api/v1/uploads/" + issued.ID.String(), "user42", "", 404},
		"a path that leads": {http.MethodGet, "/api/v1/uploads/..%2f..%2fmetrics", "user42", "", 404},
		"no JSON":           {http.MethodPost, "/api/v1/uploads", "user42", "{", 400},
		"a refusal":         {http.MethodPost, "/api/v1/uploads/form", "user42", `{"key":"other"}`, 422},
	} {
		if status, text := ask(tt.method, tt.path, tt.cookie, tt.body); status != tt.status && !(name == "a refusal" && status == 403) {
			t.Errorf("%s: %d %s", name, status, text)
		}
	}
	put, err := http.NewRequestWithContext(t.Context(), issued.Method, issued.URL, strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range issued.Headers {
		put.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(put)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	status, text = ask(http.MethodGet, "/api/v1/uploads/"+issued.ID.String(), "user42", "")
	if response.StatusCode != http.StatusOK || status != http.StatusOK || !strings.Contains(string(text), `"uid":"user42"`) {
		t.Errorf("%s, then %d %s", response.Status, status, text)
	}
	if rows := s.rows(t); rows != 1 {
		t.Errorf("%d rows", rows)
	}
}
