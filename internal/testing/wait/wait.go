// Package wait lets a test poll, up to a deadline, for a condition that sends no event.
package wait

import (
	"testing"
	"time"
)

// limit is generous, because everything takes long beside other tests on a slow machine.
const limit = 2 * time.Minute

// Until returns when holds returns true. After two minutes it fails the test and says what did
// not come true.
func Until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("did not come true in %s: %s", limit, what)
		}
	}
}
