package main

import (
	"strings"
	"testing"

	"upcall/internal/testing/clitest"
)

// TestSampleSettings: the issuer knows each setting of the sample for systemd, and accepts all values.
func TestSampleSettings(t *testing.T) {
	t.Parallel()
	env := clitest.ReadEnv(t, "../../deploy/systemd/issuer.env")
	env["UPCALL_DATABASE_URL"], env["UPCALL_TOKEN_KEYS"] = "postgres://upcall@127.0.0.1/upcall", "k1:"+strings.Repeat("0123456789abcdef", 4)
	env["OSS_ACCESS_KEY_SECRET"] = "secret"
	env["UPCALL_NO_SUCH_SETTING"] = "x" // the only mistake, so that nothing starts
	if env["UPCALL_POLICIES"] == "" {
		t.Fatal("no policies are named")
	}
	env["UPCALL_POLICIES"] = clitest.WriteFile(t, "policies.yaml", "policies: {photos: {buckets: [my-bucket], key_prefixes: [photos/], "+
		"content_types: [image/*], max_size: 20MiB, max_expiry: 1h, callback_urls: [\"https://hooks.example.com/oss/callback\"]}}\n")
	_, _, err := program.Execute(t, env, "serve")
	if err == nil || !strings.HasPrefix(err.Error(), "UPCALL_NO_SUCH_SETTING: ") || strings.Contains(err.Error(), "\n") {
		t.Error(err)
	}
}

// TestChart: the Helm chart takes every setting. It sets the first ones itself; credentials are in another place.
func TestChart(t *testing.T) {
	t.Parallel()
	program.CheckChart(t, "issuer", "UPCALL_API_LISTEN", "UPCALL_API_ADMIN_LISTEN", "UPCALL_POLICIES",
		"UPCALL_CREDENTIALS_FILE", "UPCALL_CREDENTIALS_PROCESS")
}
