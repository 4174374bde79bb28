package uploadtoken

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseKeysRefuses(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                    "key 1 is not kid:secret",
		"hunter2":             "key 1 is not kid:secret",
		"k1:":                 "key 1 is not kid:secret",
		":hunter2":            "key 1: the key id is not 1 to 24 lower-case letters, digits, hyphens or underscores",
		"K1:hunter2":          "key 1: the key id is not 1 to 24 lower-case letters, digits, hyphens or underscores",
		"k.1:hunter2":         "key 1: the key id is not 1 to 24 lower-case letters, digits, hyphens or underscores",
		"k1:a,k1:b":           "key 2: the key id k1 is used twice",
		"k1:a,,k2:b":          "key 2 is not kid:secret",
		"k1:hunter2,K2:b,bad": "key 2: the key id is not 1 to 24 lower-case letters, digits, hyphens or underscores\nkey 3 is not kid:secret",
	} {
		_, err := ParseKeys(in)
		if err == nil || err.Error() != want {
			t.Errorf("ParseKeys(%q): %v, want %s", in, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("ParseKeys(%q): the error contains the secret", in)
		}
	}
}

func TestKeyringHidesSecrets(t *testing.T) {
	t.Parallel()
	k := ring(t, "k1:hunter2")
	if got := k.String(); strings.Contains(got, "hunter2") {
		t.Errorf("String shows the secret: %s", got)
	}
	if diff := cmp.Diff([]string{"k1"}, k.Weak()); diff != "" {
		t.Error(diff)
	}
}
