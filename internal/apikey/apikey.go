// Package apikey makes the issuer's API keys, reads them from requests, and compares them
// with what is stored of them.
//
// A key is the text
//
//	upk_<id>_<43 characters of base64url: 256 random bits>
//
// The id is public, in logs and in lists; the 256 bits are the secret, shown once when
// the key is made. The id and the SHA-256 of the secret are stored. No slow hash is
// needed: it protects passwords that can be guessed, and nobody guesses 256 random bits,
// however fast the hash. A stolen table therefore opens nothing, and a request costs one
// SHA-256, not a tenth of a second with which anyone could overload the service.
package apikey

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"upcall/internal/ossrule"
)

// prefix starts every key, so that people, and scanners for secrets in repositories,
// recognize one.
const prefix = "upk_"

const (
	secretBytes = 32
	secretChars = 43 // of base64url without padding
	maxID       = 32 // characters
)

// MaxLen is the maximum length of a key in bytes.
const MaxLen = len(prefix) + maxID + len("_") + secretChars

var (
	// ErrMalformed means a text that is not a key. It does not show the text, which may be
	// a secret with one stray character.
	ErrMalformed = errors.New("not an API key")
	// ErrID means an id that no key can have.
	ErrID = errors.New("id of an API key")
)

// A Secret is the secret part of a key. It never prints.
type Secret [secretBytes]byte

// String hides the secret from logs.
func (Secret) String() string { return "(secret)" }

// GoString hides the secret from logs, too.
func (Secret) GoString() string { return "apikey.Secret{}" }

// Hash returns what is stored of the secret.
func (s Secret) Hash() Hash { return sha256.Sum256(s[:]) }

// A Hash is the SHA-256 of a secret.
type Hash [sha256.Size]byte

// Matches reports whether h is the hash of s. It takes the same time whatever differs:
// otherwise someone who can time the answers could learn a stored hash byte by byte.
func (h Hash) Matches(s Secret) bool {
	other := s.Hash()
	return subtle.ConstantTimeCompare(h[:], other[:]) == 1
}

// New makes a key and returns its text, to be shown once, and the hash to be stored.
// The error wraps ErrID.
func New(id string) (text string, hash Hash, err error) {
	if err := CheckID(id); err != nil {
		return "", Hash{}, err
	}
	var secret Secret
	rand.Read(secret[:]) // never fails: the program ends where there is no randomness
	return prefix + id + "_" + base64.RawURLEncoding.EncodeToString(secret[:]), secret.Hash(), nil
}

// NewID makes a random id, for a key without a given one.
func NewID() string { return strings.ToLower(rand.Text())[:12] }

// CheckID returns nil if id is 1 to 32 lower-case letters, digits and hyphens, the first
// a letter or digit. Object keys and logs contain the id, so it has no character that
// either would have to escape. The error wraps ErrID.
func CheckID(id string) error {
	switch {
	case id == "":
		return fmt.Errorf("%w: it is empty", ErrID)
	case len(id) > maxID:
		return fmt.Errorf("%w: it has %d characters, and 32 are allowed", ErrID, len(id))
	case !ossrule.IsName(id):
		return fmt.Errorf("%w: %q contains something other than lower-case letters, digits and hyphens", ErrID, id)
	case id[0] == '-':
		return fmt.Errorf("%w: %q starts with a hyphen", ErrID, id)
	}
	return nil
}

// Parse takes a key apart. It reads exactly what New writes; the error is ErrMalformed.
func Parse(text string) (id string, secret Secret, err error) {
	rest, ok := strings.CutPrefix(text, prefix)
	if !ok || len(text) > MaxLen {
		return "", Secret{}, ErrMalformed
	}
	// No id contains an underscore; a secret may.
	id, encoded, ok := strings.Cut(rest, "_")
	if !ok || CheckID(id) != nil || len(encoded) != secretChars {
		return "", Secret{}, ErrMalformed
	}
	// Strict: the last character has two unused bits, and a key must have only one
	// spelling. encoding/base64 skips line breaks, which makes the secret short.
	n, err := base64.RawURLEncoding.Strict().Decode(secret[:], []byte(encoded))
	if err != nil || n != secretBytes {
		return "", Secret{}, ErrMalformed
	}
	return id, secret, nil
}
