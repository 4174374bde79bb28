package webhook

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"upcall/internal/fault"
)

// secretPrefix begins a secret's text (Standard Webhooks 1.0, "Signature scheme").
const secretPrefix = "whsec_"

// The bounds of a secret's length in bytes, from the same place.
const minSecret, maxSecret = 24, 64

// ErrSecret says that a text is not a secret of Standard Webhooks.
var ErrSecret = errors.New("not a webhook secret")

// A Secret signs the deliveries to one endpoint. It does not print itself.
type Secret struct{ key []byte }

// NewSecret returns a random secret.
func NewSecret() Secret {
	key := make([]byte, 32)
	rand.Read(key) // never fails
	return Secret{key}
}

// ParseSecret reads whsec_ and standard Base64 of 24 to 64 bytes. The error wraps [ErrSecret]
// and does not contain the text.
func ParseSecret(text string) (Secret, error) {
	const fix = "write whsec_ and Base64 of 24 to 64 random bytes, as openssl rand -base64 32 prints it"
	encoded, ok := strings.CutPrefix(text, secretPrefix)
	if !ok {
		return Secret{}, fault.New(ErrSecret, "", fix, "the secret does not begin with whsec_")
	}
	key, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || strings.ContainsAny(encoded, "\r\n") { // which the decoder skips
		return Secret{}, fault.New(ErrSecret, "", fix, "what follows whsec_ is not standard Base64")
	}
	if len(key) < minSecret || len(key) > maxSecret {
		return Secret{}, fault.New(ErrSecret, "", fix, "the secret has %d bytes", len(key))
	}
	return Secret{key}, nil
}

// IsZero reports whether there is no secret.
func (s Secret) IsZero() bool { return s.key == nil }

// Reveal returns the text that [ParseSecret] reads.
func (s Secret) Reveal() string { return secretPrefix + base64.StdEncoding.EncodeToString(s.key) }

// String hides the secret from logs.
func (s Secret) String() string { return secretPrefix + "…" }

// Sign adds the headers of Standard Webhooks to a request with this body. While a secret is
// being replaced, there is a signature by each, so that the endpoint may verify by either.
func Sign(h http.Header, id string, at time.Time, body []byte, secrets []Secret) {
	timestamp := strconv.FormatInt(at.Unix(), 10)
	var signatures strings.Builder
	for i, secret := range secrets {
		mac := hmac.New(sha256.New, secret.key)
		mac.Write([]byte(id + "." + timestamp + "."))
		mac.Write(body)
		if i > 0 {
			signatures.WriteByte(' ')
		}
		signatures.WriteString("v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	// The specification writes these names in lower case, and HTTP compares them without case.
	h.Set("Webhook-Id", id)
	h.Set("Webhook-Timestamp", timestamp)
	h.Set("Webhook-Signature", signatures.String())
}
