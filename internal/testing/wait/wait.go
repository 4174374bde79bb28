// Package wait lets a test poll for what sends no event, up to a deadline.
package wait

import (
	"testing"
	"time"
)

// limit is generous: beside other tests, on a slow machine, everything takes long.
const limit = 2 * time.Minute

// Until returns when holds does return true. If it takes two minutes, the test fails and
// says what did not come true.
func Until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("did not come true in %s: %s", limit, what)
		}
	}
}
