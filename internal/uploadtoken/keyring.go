package uploadtoken

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"upcall/internal/fault"
	"upcall/internal/ossrule"
)

// maxKeyID keeps the longest token within MaxLen.
const maxKeyID = 24

// WeakSecret is the length in bytes under which a secret can be guessed offline by
// anyone who holds one token. A longer one of fewer than varied different bytes can be, too.
const (
	WeakSecret = 16
	varied     = 5
)

// A Keyring holds the secrets of tokens. The first mints and all check, so that a secret
// can be replaced without refusing an upload: add the new one at the end everywhere, then
// move it to the front at the issuers, then, when the last token of the old one has
// expired, remove the old one.
type Keyring struct{ keys []*key }

type key struct {
	id    string
	weak  bool      // the secret can be guessed
	works sync.Pool // of *work
}

func newKey(id, secret string) *key {
	k := &key{id: id, weak: len(secret) < WeakSecret || len(slices.Compact(slices.Sorted(slices.Values([]byte(secret))))) < varied}
	k.works.New = func() any { return newWork(secret) }
	return k
}

// String hides the secrets from logs.
func (k *Keyring) String() string { return fmt.Sprintf("keyring of %d", len(k.keys)) }

// ParseKeys reads "kid:secret[,kid:secret]". A key id is 1 to 24 lower-case letters,
// digits, hyphens or underscores; a secret is any text without a comma. The error
// names every mistake by its place in the list and never contains a secret.
func ParseKeys(s string) (*Keyring, error) {
	var ring Keyring
	var faults fault.List
	for i, entry := range strings.Split(s, ",") {
		id, secret, ok := strings.Cut(strings.TrimSpace(entry), ":")
		key := fmt.Sprintf("key %d", i+1)
		switch {
		case !ok || secret == "":
			faults.AddAt("", "%s is not kid:secret", key)
		case id == "" || len(id) > maxKeyID || !ossrule.IsName(strings.ReplaceAll(id, "_", "-")):
			faults.AddAt(key, "the key id is not 1 to %d lower-case letters, digits, hyphens or underscores", maxKeyID)
		case ring.find(id) != nil:
			faults.AddAt(key, "the key id %s is used twice", id)
		default:
			ring.keys = append(ring.keys, newKey(id, secret))
		}
	}
	if err := faults.Err(); err != nil {
		return nil, err
	}
	return &ring, nil
}

// Weak returns the ids of the keys whose secrets can be guessed.
func (k *Keyring) Weak() []string {
	var ids []string
	for _, key := range k.keys {
		if key.weak {
			ids = append(ids, key.id)
		}
	}
	return ids
}

// find returns the key with that id, or nil.
func (k *Keyring) find(id string) *key {
	for _, key := range k.keys {
		if key.id == id {
			return key
		}
	}
	return nil
}
