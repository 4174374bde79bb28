package main

import (
	"errors"
	"strings"
	"testing"

	"upcall/internal/cli"
	"upcall/internal/dbtest"
	"upcall/internal/testing/clitest"
	"upcall/internal/webhook"
)

// TestHooksListen has samples sent to the listener: by one who has the secret, and by one who
// has not.
func TestHooksListen(t *testing.T) {
	t.Parallel()
	file := clitest.WriteFile(t, "secret", webhook.NewSecret().Reveal()+"\n")
	app := program.Start(t, nil, "hooks", "listen", "--listen", "127.0.0.1:0", "--secret-file", file)
	url := strings.TrimSpace(strings.TrimPrefix(app.Line(t, func(line string) bool { return strings.HasPrefix(line, "waiting for ") }),
		"waiting for deliveries at "))
	env := clitest.Env{"UPCALL_DATABASE_URL": dbtest.URL(t), "UPCALL_HOOKS_ALLOW_HTTP": "true", "UPCALL_HOOKS_ALLOW_CIDRS": "127.0.0.0/8"}
	program.Output(t, env, "hooks", "add", "--url", url, "--name", "app", "--secret-file", file)
	program.Output(t, env, "hooks", "add", "--url", url, "--name", "other")
	if got := program.Output(t, env, "hooks", "test", "app"); !strings.HasPrefix(got, "204 ") {
		t.Errorf("the sample was answered %s", got)
	}
	app.Line(t, func(line string) bool { return strings.Contains(line, " verified test: ") })
	if _, _, err := program.Execute(t, env, "hooks", "test", "other"); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("another secret: %v", err)
	}
	app.Line(t, func(line string) bool { return strings.Contains(line, " refused ") })
	if err := app.Stop(); err != nil {
		t.Error(err)
	}
}

func TestHooksListenReject(t *testing.T) {
	t.Parallel()
	file := clitest.WriteFile(t, "secret", "hunter2")
	for args, says := range map[string]string{
		"hooks listen":                              "--secret-file: it is missing",
		"hooks listen --secret-file /does/not":      "--secret-file: ",
		"hooks listen --secret-file " + file:        "--secret-file: the secret does not begin with whsec_",
		"hooks listen --format xml --secret-file x": "--format",
	} {
		err := program.Error(t, nil, strings.Fields(args)...)
		if !errors.Is(err, cli.ErrUsage) || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", args, err)
		}
	}
}
