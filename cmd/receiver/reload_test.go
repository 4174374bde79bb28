package main

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"upcall/internal/dbtest"
	"upcall/internal/testing/clitest"
	"upcall/internal/testing/wait"
)

// TestServeReload changes the file of endpoints while the receiver runs. A file with a mistake changes nothing.
func TestServeReload(t *testing.T) {
	t.Parallel()
	secret := clitest.WriteFile(t, "secret", "whsec_bG9jYWwtc3RhY2stb25seS0wMTIzNDU2Nzg5YWJjZGVm\n")
	declared := func(name, url string) string {
		return "hooks:\n  - {name: " + name + ", url: " + url + ", secret_file: " + secret + "}\n"
	}
	file := clitest.WriteFile(t, "hooks.yaml", declared("app", "https://app.example.com/first"))
	env := clitest.Env{"UPCALL_LISTEN": "127.0.0.1:0", "UPCALL_ADMIN_LISTEN": "127.0.0.1:0", "UPCALL_DATABASE_URL": dbtest.URL(t),
		"UPCALL_TOKEN_KEYS": "k1:0123456789abcdef", "UPCALL_HOOKS_FILE": file}
	running := program.Start(t, env, "serve")
	running.Line(t, func(line string) bool { return strings.Contains(line, `"msg":"serving"`) })
	for _, step := range []struct{ content, says, lists, not string }{
		{declared("app", "https://app.example.com/second"), "hooks file reloaded", "https://app.example.com/second", "/first"},
		{declared("app", "https://app.example.com/third") + "nope: 1\n", "hooks file was not reloaded", "/second", "/third"},
		{declared("other", "https://app.example.com/other"), "hooks file reloaded", "/other", "/third"},
	} {
		if err := os.WriteFile(file, []byte(step.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		line := running.Line(t, func(line string) bool { return strings.Contains(line, "reloaded") })
		if !strings.Contains(line, `"msg":"`+step.says+`"`) {
			t.Errorf("%s: %s", step.content, line)
		}
		wait.Until(t, "the endpoints are "+step.lists, func() bool {
			list := program.Output(t, clitest.Env{"UPCALL_DATABASE_URL": env["UPCALL_DATABASE_URL"]}, "hooks", "list")
			return strings.Contains(list, step.lists) && !strings.Contains(list, step.not)
		})
	}
	if err := running.Stop(); err != nil {
		t.Error(err)
	}
}
