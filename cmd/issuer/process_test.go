package main

import (
	"fmt"
	"os"
	"testing"
)

// asIssuer makes the test's own program run as issuer, for what can be tested in a
// process of its own only.
const asIssuer = "ISSUER_TEST_AS_ISSUER"

func TestMain(m *testing.M) {
	if os.Getenv(asIssuer) != "" {
		main()
		return
	}
	if setting := os.Getenv(asReceiver); setting != "" {
		if err := serveReceiver(setting); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}
