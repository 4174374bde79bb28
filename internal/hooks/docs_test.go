package hooks

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"upcall/internal/testing/toolchain"
	"upcall/internal/testing/wait"
	"upcall/internal/webhook"
)

// page returns docs/hooks.md and its blocks in a language.
func page(t *testing.T, language string) []string {
	t.Helper()
	text, err := os.ReadFile("../../docs/hooks.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, found := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
		blocks = append(blocks, found[1])
	}
	if len(blocks) == 0 {
		t.Fatalf("docs/hooks.md has nothing in %s", language)
	}
	return blocks
}

// TestDocumentedReceivers runs each program of docs/hooks.md: it takes what we sign with its
// secret, also beside another one, and refuses everything else.
func TestDocumentedReceivers(t *testing.T) {
	t.Parallel()
	for language, recipe := range map[string]struct {
		needs, file string
		run         []string
	}{
		"go":     {"", "main.go", []string{"sh", "-c", "go build -o main main.go && exec ./main"}},
		"js":     {"node", "main.js", []string{"node", "main.js"}},
		"python": {"python", "main.py", []string{"/usr/bin/python3", "-I", "main.py"}},
	} {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			if recipe.needs != "" {
				toolchain.Need(t, recipe.needs)
			}
			dir, secret := t.TempDir(), webhook.NewSecret()
			if err := os.WriteFile(filepath.Join(dir, recipe.file), []byte(page(t, language)[0]), 0o600); err != nil {
				t.Fatal(err)
			}
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			address := listener.Addr().String()
			_, port, _ := net.SplitHostPort(address)
			listener.Close()
			program := exec.CommandContext(t.Context(), recipe.run[0], recipe.run[1:]...)
			program.Dir, program.Stderr = dir, os.Stderr
			program.Env = append(os.Environ(), "PORT="+port, "SECRET="+secret.Reveal())
			stdout, err := program.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := program.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = program.Process.Kill(); _ = program.Wait() }() // which says so
			wait.Until(t, "it listens", func() bool {
				conn, err := net.Dial("tcp", address)
				if err == nil {
					conn.Close()
				}
				return err == nil
			})
			e := anEvent()
			body, err := webhook.NewMessage(e).Body()
			if err != nil {
				t.Fatal(err)
			}
			post := func(s *sender, secrets ...webhook.Secret) int {
				t.Helper()
				return send(t, s, request{url: "http://" + address + "/hooks", secrets: secrets, id: e.ID.String(), body: body}).status
			}
			now := newSender(loopback, time.Now, nil)
			old := newSender(loopback, func() time.Time { return time.Now().Add(-10 * time.Minute) }, nil)
			if got := post(now, webhook.NewSecret()); got != 401 {
				t.Errorf("another secret: %d", got)
			}
			if got := post(old, secret); got != 401 {
				t.Errorf("an old delivery: %d", got)
			}
			if got := post(now, webhook.NewSecret(), secret); got != 204 {
				t.Errorf("while the secret is rotated: %d", got)
			}
			line, err := bufio.NewReader(stdout).ReadString('\n')
			if err != nil || strings.TrimSpace(line) != e.Callback.Object {
				t.Errorf("printed %q, %v", line, err)
			}
		})
	}
}

// TestDocumentedFile reads the file of docs/hooks.md.
func TestDocumentedFile(t *testing.T) {
	t.Parallel()
	secret := webhook.NewSecret()
	got, err := ParseFile([]byte(page(t, "yaml")[0]), Rules{}, func(path string) (string, error) {
		if path != "/run/secrets/app_hook" {
			t.Errorf("reads %s", path)
		}
		return secret.Reveal(), nil
	})
	if err != nil || len(got) != 1 || got[0].Name != "app" || got[0].KeyGlobs[0] != "**/*.jpg" || got[0].Vars["tenant"] != "7" ||
		got[0].MaxInFlight != 8 || got[0].Secret.Reveal() != secret.Reveal() {
		t.Errorf("%v: %+v", err, got)
	}
}

// TestComposeFile: the endpoint that docker-compose.yml declares is its service, which has the
// same secret.
func TestComposeFile(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../deploy/hooks.yaml")
	if err != nil {
		t.Fatal(err)
	}
	rules := Rules{AllowHTTP: true}
	got, err := ParseFile(data, rules, func(path string) (string, error) {
		text, err := os.ReadFile(filepath.Join("../../deploy/secrets", filepath.Base(path)))
		return strings.TrimSpace(string(text)), err
	})
	if err != nil || len(got) != 1 || got[0].URL != "http://app:8090/" {
		t.Errorf("%v: %+v", err, got)
	}
	compose, err := os.ReadFile("../../docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	want := `command: [hooks, listen, --listen, ":8090", --secret-file, /run/secrets/hook_secret]`
	if _, app, _ := strings.Cut(string(compose), "\n  app:\n"); !strings.Contains(app, want) {
		t.Errorf("docker-compose.yml does not run %s", want)
	}
}
