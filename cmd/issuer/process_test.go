package main

import (
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
	os.Exit(m.Run())
}
