package e2e

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"upcall/internal/testing/proc"
	"upcall/internal/testing/servetest"
	"upcall/internal/testing/toolchain"
	"upcall/internal/testing/wait"
)

// TestTestingPrograms runs the tests in Go, Node.js and Python of docs/testing.md. The application's first answer is a
// failure, so that the first of them waits for a retry.
func TestTestingPrograms(t *testing.T) {
	t.Parallel()
	stack := startTestingStack(t)
	issuer := stack.startIssuer(t)
	env := append(slices.Clone(stack.env), "PATH="+os.Getenv("PATH"), "HOME="+os.Getenv("HOME"),
		proc.QuickExit, "ISSUER="+issuer, "RECEIVER=http://"+stack.admin,
		"EMULATOR="+stack.emulator, "API_KEY="+stack.key(t, "issuer", "--policy", "demo"), "KEY="+stack.key(t, "receiver", "--role", "viewer"))
	for _, one := range []struct {
		language, file, needs string
		command               []string
	}{
		{"go", "upload_test.go", "", []string{"go", "test", "-count=1"}},
		{"js", "upload.test.mjs", "node", []string{"node", "--test"}},
		{"python", "upload_test.py", "python", []string{"/usr/bin/python3"}},
	} {
		t.Run(one.language, func(t *testing.T) { // one at a time: each empties the emulator
			if one.needs != "" {
				toolchain.Need(t, one.needs)
			}
			programs := stack.blocks[one.language]
			if len(programs) != 1 {
				t.Fatalf("the page has %d programs", len(programs))
			}
			if err := os.WriteFile(filepath.Join(stack.dir, one.file), []byte(programs[0]), 0o600); err != nil {
				t.Fatal(err)
			}
			run := func(env []string) (string, error) {
				test := exec.CommandContext(t.Context(), one.command[0], append(one.command[1:], one.file)...)
				test.Dir, test.Env = stack.dir, env
				out, err := test.CombinedOutput()
				return string(out), err
			}
			if out, err := run(env); err != nil {
				t.Errorf("%v: %s", err, out)
			}
			// What fails is not told to have passed: here nobody may see whether the hook was delivered.
			if out, err := run(append(slices.Clone(env), "KEY=upk_x")); err == nil {
				t.Errorf("it passes without a key: %s", out)
			}
		})
	}
	if n := stack.attempts.Load(); n < 3 {
		t.Errorf("%d attempts, and the first failed", n)
	}
}

// startIssuer starts an issuer with the stack's policy, and returns the URL of its API.
func (s *testingStack) startIssuer(t *testing.T) string {
	t.Helper()
	policies := filepath.Join(s.dir, "policies.yaml")
	text, err := os.ReadFile("../../deploy/policies.yaml")
	if err == nil {
		err = os.WriteFile(policies, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	free := func() string {
		listener := servetest.Listen(t)
		defer listener.Close()
		return listener.Addr().String()
	}
	api := free()
	program := exec.CommandContext(t.Context(), filepath.Join(programs(t), "issuer"), "serve")
	program.Env = append(slices.Clone(s.env), proc.QuickExit, "OSS_REGION=cn-hangzhou", "OSS_ENDPOINT="+s.emulator, "OSS_ACCESS_KEY_ID=ossemu",
		"OSS_ACCESS_KEY_SECRET=ossemu-secret", "UPCALL_API_LISTEN="+api, "UPCALL_API_ADMIN_LISTEN="+free(), "UPCALL_POLICIES="+policies)
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = program.Process.Kill(); _ = program.Wait() }) // which says so
	wait.Until(t, "the issuer answers", func() bool {
		response, err := http.Get("http://" + api + "/openapi.yaml")
		if err == nil {
			response.Body.Close()
		}
		return err == nil && response.StatusCode == http.StatusOK
	})
	return "http://" + api
}

// key returns a new key of a program's API.
func (s *testingStack) key(t *testing.T, program string, args ...string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), filepath.Join(programs(t), program), append([]string{"keys", "add"}, args...)...)
	command.Env = append(slices.Clone(s.env), proc.QuickExit)
	out, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
