package verify

import (
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"slices"
	"testing"

	"upcall/internal/testing/vectors"
)

// TestDigest checks that Digest and Verify agree about every vector whose key is known:
// there is a digest if the key made the signature, and it is that of the string to sign if
// the callback is genuine.
func TestDigest(t *testing.T) {
	t.Parallel()
	file := vectors.PublicKey(t)
	const url = "http://keys.test/key.pem"
	verifier, err := NewWithKey(url, file)
	if err != nil {
		t.Fatal(err)
	}
	aboutContent := []string{"ok", ErrDigestMismatch.Reason(), ErrTarget.Reason(), ErrSignatureVersion.Reason()}
	opened := 0
	for id, v := range loadVectors(t) {
		r := request(v)
		if s := v.KeyServer; s != nil {
			if s.Status != 0 || s.Body != nil || s.Down || s.Untrusted || s.Pad != 0 {
				continue
			}
			r.PubKeyURL = base64.StdEncoding.EncodeToString([]byte(url))
		}
		digest, err := verifier.Digest(t.Context(), r.PubKeyURL, r.Authorization)
		if slices.Contains(aboutContent, v.Expect) != (err == nil) {
			t.Errorf("%s: verification says %s, Digest says %v", id, v.Expect, err)
		}
		if err != nil {
			if got := reason(t, err); got != v.Expect {
				t.Errorf("%s: got %s, want %s", id, got, v.Expect)
			}
			continue
		}
		opened++
		if v.Expect == "ok" {
			signed, err := StringToSign(r.Target, r.Body)
			if err != nil {
				t.Fatal(err)
			}
			if digest != md5.Sum(signed) {
				t.Errorf("%s: the signature contains %x", id, digest)
			}
		}
		if want, known := genuine[id]; known && want != hex.EncodeToString(digest[:]) {
			t.Errorf("%s: the signature contains %x", id, digest)
		}
	}
	if opened < 20 {
		t.Errorf("only %d vectors were opened", opened)
	}
}

func TestNewWithKey(t *testing.T) {
	t.Parallel()
	file := vectors.PublicKey(t)
	const url = "http://keys.test/key.pem"
	verifier, err := NewWithKey(url, file)
	if err != nil {
		t.Fatal(err)
	}
	v := loadVectors(t)["test-key"]
	for keyURL, want := range map[string]error{
		url:                       nil,
		url + "?":                 ErrKeyURL,
		"http://keys.test/k.pem":  ErrKeyURL,
		"https://keys.test/k.pem": ErrKeyURL,
	} {
		r := request(v)
		r.PubKeyURL = base64.StdEncoding.EncodeToString([]byte(keyURL))
		if err := verifier.Verify(t.Context(), r); !errors.Is(err, want) {
			t.Errorf("%s: %v", keyURL, err)
		}
	}
	if _, err := NewWithKey(url, []byte("no key")); !errors.Is(err, ErrKeyFormat) {
		t.Errorf("no key: %v", err)
	}
	if _, err := NewWithKey("", file); !errors.Is(err, ErrKeyURL) {
		t.Errorf("no URL: %v", err)
	}
}
