package event

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"math/big"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// An Erasure says which events are to be without their variables and the address of their
// uploader: those of an upload, or those with a value of a variable. The value itself is not in it.
type Erasure struct {
	Before   time.Time     // of events that were received before this
	Upload   uuid.NullUUID // the upload, or
	Variable string        // the name of the variable,
	Salt     []byte        // and
	Digest   []byte        // the digest of its value
}

// ErasureDigest returns the digest of a variable's value. PostgreSQL computes the same in
// insertEvents of package eventstore.
func ErasureDigest(salt []byte, value string) []byte {
	sum := sha256.Sum256(append(bytes.Clone(salt), value...))
	return sum[:]
}

// Matches reports whether an event is to be erased.
func (x Erasure) Matches(e *Event) bool {
	if !e.ReceivedAt.Before(x.Before) {
		return false
	}
	if x.Upload.Valid {
		return e.UploadID == x.Upload
	}
	value, ok := VarText(e.Callback.Vars[x.Variable])
	return ok && bytes.Equal(ErasureDigest(x.Salt, value), x.Digest)
}

// Erase removes what an Erasure is about.
func (e *Event) Erase() { e.Callback.Vars, e.Callback.ClientIP = nil, netip.Addr{} }

// maxExponent bounds how long a number is written out.
const maxExponent = 1000

// VarText returns a variable's value as vars->>'name' does in PostgreSQL, if it is a text, a
// number, true or false.
func VarText(value json.RawMessage) (text string, ok bool) {
	value = bytes.TrimSpace(value)
	if len(value) == 0 || value[0] == '{' || value[0] == '[' || string(value) == "null" {
		return "", false
	}
	if value[0] == '"' {
		return text, json.Unmarshal(value, &text) == nil
	}
	if text = string(value); text == "true" || text == "false" {
		return text, true
	}
	digits, exponent, scientific := strings.Cut(strings.ToLower(text), "e")
	if !scientific {
		if strings.Trim(text, "-0.") == "" { // PostgreSQL knows no negative zero
			text = strings.TrimPrefix(text, "-")
		}
		return text, true
	}
	n, err := strconv.Atoi(exponent)
	number, ok := new(big.Rat).SetString(text)
	if err != nil || !ok || n > maxExponent || n < -maxExponent {
		return "", false
	}
	_, fraction, _ := strings.Cut(digits, ".")
	return number.FloatString(max(len(fraction)-n, 0)), true
}
