package main

import (
	"strings"
	"testing"

	"upcall/internal/testing/clitest"
)

// TestSampleSettings: the receiver knows each setting of the sample for systemd, and accepts all values.
func TestSampleSettings(t *testing.T) {
	t.Parallel()
	env := clitest.ReadEnv(t, "../../deploy/systemd/receiver.env")
	env["UPCALL_DATABASE_URL"], env["UPCALL_TOKEN_KEYS"] = "postgres://upcall@127.0.0.1/upcall", "k1:"+strings.Repeat("0123456789abcdef", 4)
	env["UPCALL_SPOOL_DIR"] = t.TempDir()
	env["UPCALL_NO_SUCH_SETTING"] = "x" // the only mistake, so that nothing starts
	if env["UPCALL_HOOKS_FILE"] == "" {
		t.Fatal("no file of hooks is named")
	}
	env["UPCALL_HOOKS_FILE"] = clitest.WriteFile(t, "hooks.yaml", "hooks: [{name: app, url: https://app.example.com/hooks, secret_file: "+
		clitest.WriteFile(t, "secret", "whsec_"+strings.Repeat("MDEy", 8))+"}]\n")
	_, _, err := program.Execute(t, env, "serve")
	if err == nil || !strings.HasPrefix(err.Error(), "UPCALL_NO_SUCH_SETTING: ") || strings.Contains(err.Error(), "\n") {
		t.Error(err)
	}
}

// TestChart: the Helm chart takes every setting. It sets the first ones itself; credentials and databases are in other places.
func TestChart(t *testing.T) {
	t.Parallel()
	program.CheckChart(t, "receiver", "UPCALL_LISTEN", "UPCALL_ADMIN_LISTEN", "UPCALL_SPOOL_DIR", "UPCALL_HOOKS_FILE",
		"UPCALL_CREDENTIALS_FILE", "UPCALL_CREDENTIALS_PROCESS", "UPCALL_DATA_DIR", "UPCALL_STREAM_CREDS_FILE")
}
