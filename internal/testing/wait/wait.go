// Package wait lets a test poll, up to a deadline, for a condition that sends no event.
package wait

import (
	"testing"
	"time"
)

// limit is generous, because everything takes long beside other tests on a slow machine.
const limit = 2 * time.Minute

// mostOfOne is how much of one look at the condition and the pause after it counts. If it takes longer,
// this process or what it waits for was suspended.
const mostOfOne = time.Second

// Until returns when holds returns true. After two minutes it fails the test and says what did
// not come true.
func Until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	last := time.Now()
	for waited := time.Duration(0); !holds(); {
		if waited > limit {
			t.Fatalf("did not come true in %s: %s", limit, what)
		}
		time.Sleep(5 * time.Millisecond)
		now := time.Now()
		waited += min(now.Sub(last), mostOfOne)
		last = now
	}
}
