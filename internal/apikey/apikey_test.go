package apikey_test

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"upcall/internal/apikey"
)

// sample is a key whose secret is the bytes 0 to 31.
const sample = "upk_web-1_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"

func TestNew(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for range 100 {
		text, hash, err := apikey.New("web-1")
		if err != nil {
			t.Fatal(err)
		}
		id, secret, err := apikey.Parse(text)
		if err != nil || id != "web-1" {
			t.Fatalf("parsing %s: %q, %v", text, id, err)
		}
		raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(text, "upk_web-1_"))
		if err != nil || sha256.Sum256(raw) != hash {
			t.Fatalf("the hash of %s is not the SHA-256 of its secret (%v)", text, err)
		}
		if !hash.Matches(secret) || seen[text] {
			t.Fatalf("key %s: matches %t, seen before %t", text, hash.Matches(secret), seen[text])
		}
		seen[text] = true
	}
}

func TestNewID(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for range 1000 {
		id := apikey.NewID()
		if err := apikey.CheckID(id); err != nil || seen[id] {
			t.Fatalf("id %q: %v, seen before %t", id, err, seen[id])
		}
		seen[id] = true
	}
}

func TestIDRejections(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"", "-", "-a", "A", "a_b", "a b", "a/b", "a.b", "ä", "a\n", "a\x00", "${uuid}", strings.Repeat("a", 33)} {
		if err := apikey.CheckID(id); !errors.Is(err, apikey.ErrID) || strings.Contains(err.Error(), "\n") {
			t.Errorf("CheckID(%q): %v", id, err)
		}
		if text, hash, err := apikey.New(id); !errors.Is(err, apikey.ErrID) || text != "" || hash != (apikey.Hash{}) {
			t.Errorf("New(%q): %q, %v", id, text, err)
		}
	}
	for _, id := range []string{"a", "0", "web-1", "a-", strings.Repeat("a", 32)} {
		if err := apikey.CheckID(id); err != nil {
			t.Errorf("CheckID(%q): %v", id, err)
		}
	}
}

func TestParseRejections(t *testing.T) {
	t.Parallel()
	if _, _, err := apikey.Parse(sample); err != nil {
		t.Fatalf("the sample is not a key: %v", err)
	}
	secret := strings.TrimPrefix(sample, "upk_web-1_")
	for _, tt := range []struct{ name, text string }{
		{"empty", ""},
		{"prefix alone", "upk_"},
		{"other prefix", "sk_web-1_" + secret},
		{"prefix in capitals", "UPK_web-1_" + secret},
		{"no id", "upk_" + secret},
		{"empty id", "upk__" + secret},
		{"id in capitals", "upk_Web_" + secret},
		{"id too long", "upk_" + strings.Repeat("a", 33) + "_" + secret},
		{"no secret", "upk_web-1_"},
		{"secret too short", sample[:len(sample)-1]},
		{"secret too long", sample + "A"},
		{"padding", sample + "="},
		{"padding in place of the end", sample[:len(sample)-1] + "="},
		{"standard Base64", "upk_web-1_" + strings.Repeat("+", 42) + "A"},
		{"unused bits set", sample[:len(sample)-1] + "9"},
		{"line break at the end", sample + "\n"},
		{"line break in the secret", sample[:20] + "\n" + sample[21:]},
		{"carriage return in the secret", sample[:20] + "\r" + sample[21:]},
		{"space before", " " + sample},
		{"NUL", sample[:20] + "\x00" + sample[21:]},
		{"very long", "upk_a_" + strings.Repeat("A", 1<<20)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			id, got, err := apikey.Parse(tt.text)
			if !errors.Is(err, apikey.ErrMalformed) || id != "" || got != (apikey.Secret{}) {
				t.Errorf("Parse(%.80q): %q, %v", tt.text, id, err)
			}
			if err != nil && err.Error() != apikey.ErrMalformed.Error() {
				t.Errorf("the error is %v, want only ErrMalformed's text", err)
			}
		})
	}
}

func TestMatchesRejections(t *testing.T) {
	t.Parallel()
	_, secret, err := apikey.Parse(sample)
	if err != nil {
		t.Fatal(err)
	}
	hash := secret.Hash()
	for i := range secret {
		other := secret
		other[i] ^= 1
		if hash.Matches(other) {
			t.Errorf("a secret with another byte %d matches", i)
		}
	}
	if (apikey.Hash{}).Matches(apikey.Secret{}) {
		t.Error("the zero secret matches the zero hash")
	}
}

// TestSecretsDoNotPrint tries the verbs that logs and errors use.
func TestSecretsDoNotPrint(t *testing.T) {
	t.Parallel()
	_, secret, err := apikey.Parse(sample)
	if err != nil {
		t.Fatal(err)
	}
	for format, want := range map[string]string{
		"%v": "(secret)", "%+v": "(secret)", "%s": "(secret)", "%q": `"(secret)"`, "%x": "2873656372657429", "%#v": "apikey.Secret{}",
	} {
		if got := fmt.Sprintf(format, secret); got != want {
			t.Errorf("%s prints %s, want %s", format, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(sample)
	f.Add("upk_a_" + strings.Repeat("_", 43))
	f.Add("upk__")
	f.Fuzz(func(t *testing.T, text string) {
		id, secret, err := apikey.Parse(text)
		if err != nil {
			return
		}
		// A key has only one spelling.
		if again := "upk_" + id + "_" + base64.RawURLEncoding.EncodeToString(secret[:]); again != text {
			t.Errorf("%q is also spelt %q", text, again)
		}
	})
}
