package webhook

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

func TestParseSecretRejects(t *testing.T) {
	t.Parallel()
	of := func(n int) string { return base64.StdEncoding.EncodeToString(make([]byte, n)) }
	for name, text := range map[string]string{
		"empty":             "",
		"no prefix":         of(32),
		"another prefix":    "whsk_" + of(32),
		"upper case":        "WHSEC_" + of(32),
		"nothing behind it": "whsec_",
		"23 bytes":          "whsec_" + of(23),
		"65 bytes":          "whsec_" + of(65),
		"no padding":        "whsec_" + strings.TrimRight(of(32), "="),
		"URL's alphabet":    "whsec_" + strings.Repeat("-_", 22),
		"line break inside": "whsec_" + of(32)[:8] + "\n" + of(32)[8:],
		"space at the end":  "whsec_" + of(32) + " ",
		"stray bits":        "whsec_" + strings.Repeat("A", 42) + "B=",
	} {
		_, err := ParseSecret(text)
		if !errors.Is(err, ErrSecret) {
			t.Errorf("%s: %v", name, err)
		}
		if text != "" && err != nil && strings.Contains(err.Error(), of(32)) {
			t.Errorf("%s: the error holds the secret: %v", name, err)
		}
	}
}

func TestSecretRoundTrip(t *testing.T) {
	t.Parallel()
	for _, n := range []int{24, 25, 26, 32, 64} {
		text := "whsec_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("s", n)))
		secret, err := ParseSecret(text)
		if err != nil || secret.Reveal() != text {
			t.Errorf("%d bytes: %v, %v", n, err, secret.Reveal() == text)
		}
		if printed := fmt.Sprint(secret, fmt.Sprintf("%v %+v %s", secret, secret, secret)); strings.Contains(printed, text[8:]) {
			t.Errorf("a secret prints itself: %s", printed)
		}
	}
	if NewSecret().Reveal() == NewSecret().Reveal() {
		t.Error("two new secrets are the same")
	}
}

// TestSignature verifies by the reference library, also while two secrets are in use.
func TestSignature(t *testing.T) {
	t.Parallel()
	next, previous, other := NewSecret(), NewSecret(), NewSecret()
	body := []byte(`{"key":"é` + "\u2028" + `"}`)
	h := make(http.Header)
	Sign(h, "0198f9a0-0000-7000-8000-000000000000", time.Now(), body, []Secret{next, previous})
	verify := func(s Secret, body []byte) error {
		w, err := standardwebhooks.NewWebhook(s.Reveal())
		if err != nil {
			t.Fatal(err)
		}
		return w.Verify(body, h)
	}
	if err := errors.Join(verify(next, body), verify(previous, body)); err != nil {
		t.Error(err)
	}
	if verify(other, body) == nil || verify(next, append(body, ' ')) == nil {
		t.Error("what was not signed passes")
	}
	h.Set("Webhook-Id", "another")
	if verify(next, body) == nil {
		t.Error("the id is not signed")
	}
}
