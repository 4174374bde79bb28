package ossrule_test

import (
	"errors"
	"strings"
	"testing"

	"upcall/internal/fault"
	"upcall/internal/ossrule"
)

func TestCheckBucket(t *testing.T) {
	t.Parallel()
	checkAll(t, ossrule.CheckBucket, ossrule.ErrBucket,
		[]string{"abc", "0-9", strings.Repeat("a", 63)},
		[]string{"", "ab", "-ab", "ab-", "---", "Demo", "demo_1", "demo.example", "demo\n", "bücket", strings.Repeat("a", 64)})
}

func TestCheckKey(t *testing.T) {
	t.Parallel()
	checkAll(t, ossrule.CheckKey, ossrule.ErrKey,
		[]string{"a", "a/b//c", "a\\b", " ", "a\x00b", "键", strings.Repeat("k", 1023)},
		[]string{"", "/a", `\a`, "caf\xe9", strings.Repeat("é", 512)})
}

// checkAll tries a check on texts that OSS accepts and on texts that it rejects.
func checkAll(t *testing.T, check func(string) error, rule error, good, bad []string) {
	t.Helper()
	for _, text := range good {
		if err := check(text); err != nil {
			t.Errorf("%.40q: %v", text, err)
		}
	}
	for _, text := range bad {
		err := check(text)
		if f, ok := errors.AsType[fault.Fault](err); !ok || f.Rule != rule || f.Fix == "" {
			t.Errorf("%.40q: got %v, want a fault with the rule %q and a fix", text, err, rule)
		}
	}
}
