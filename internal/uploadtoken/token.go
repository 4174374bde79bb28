// Package uploadtoken ties a callback to an upload that we issued.
//
// The OSS signature does not do that: its key has 512 bits, it covers no time, and any
// OSS customer can have OSS sign a body of their choice for our URL. Therefore the issuer
// mints a token for each upload, the token travels as the custom variable x:upcall_token
// inside the signed body, and the receiver checks it against the bucket and the object
// key in the same body.
//
// A token is
//
//	kid "." base64url( upload id [16] | expiry [5] | token tag [16] | bucket tag [16] | key tag [16] )
//
// where the expiry is in seconds since 1970, big endian, and each tag is the first half
// of an HMAC-SHA-256 under the secret that kid names. Each tag covers the key id, the
// upload id and the expiry; the bucket tag also covers the bucket, and the key tag the
// object key. Three tags instead of one tell a forged token from a genuine one that was
// moved to another bucket or object, and allow a callback that names only one of the two
// to be checked for that one. With 128 bits each, a forger has one chance in 2^128 per
// try.
package uploadtoken

import (
	"crypto/hmac"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
)

// MaxLen is the maximum length of a token in bytes.
const MaxLen = 120

const (
	idLen     = 16
	expiryLen = 5
	tagLen    = 16
	headLen   = idLen + expiryLen
	blobLen   = headLen + 3*tagLen
)

var encoding = base64.RawURLEncoding.Strict()

// The reasons why a token is refused.
var (
	// ErrForged means that no key of ours made this token: it is malformed, names an
	// unknown key, or was changed.
	ErrForged = errors.New("upload token is not genuine")
	// ErrForeignBucket means a genuine token of an upload to another bucket.
	ErrForeignBucket = errors.New("upload token is for another bucket")
	// ErrForeignKey means a genuine token of an upload to another object key.
	ErrForeignKey = errors.New("upload token is for another object key")
	// ErrExpired means a genuine token for this object that has expired. Check returns
	// its claims, too.
	ErrExpired = errors.New("upload token has expired")
)

// Claims are the content of a token.
type Claims struct {
	UploadID [16]byte  // a UUID
	Expires  time.Time // whole seconds; the token is valid until then
	Bucket   string
	Object   string // the full object key
}

// Mint returns the token for c under the first key. It fails if a claim is missing or
// the expiry is out of range.
func (k *Keyring) Mint(c Claims) (string, error) {
	seconds := c.Expires.Unix()
	switch {
	case c.UploadID == [16]byte{}:
		return "", errors.New("mint upload token: no upload id")
	case c.Bucket == "" || c.Object == "":
		return "", errors.New("mint upload token: no bucket or no object key")
	case seconds <= 0 || seconds >= 1<<(8*expiryLen):
		return "", fmt.Errorf("mint upload token: expiry %s is out of range", c.Expires.UTC().Format(time.RFC3339))
	}
	key := k.keys[0]
	var wide [8]byte
	binary.BigEndian.PutUint64(wide[:], uint64(seconds))
	var room [blobLen]byte
	blob := append(append(room[:0], c.UploadID[:]...), wide[8-expiryLen:]...)
	w := key.work(blob)
	defer key.works.Put(w)
	blob = w.tag(blob, "token")
	blob = w.tag(blob, "bucket", c.Bucket)
	blob = w.tag(blob, "key", c.Object)
	token := append(make([]byte, 0, MaxLen), key.id...)
	token = append(token, '.')
	return string(encoding.AppendEncode(token, blob)), nil
}

// Check tells whether token was minted, by any of the keys, for an upload to this
// bucket and object key, and is still valid at the time now. An empty bucket or object
// is one that the callback does not name: its tag is skipped, which gains an attacker
// nothing, because the callback then claims nothing about it. Bucket and object are
// checked separately: otherwise a callback without a bucket could claim any object.
//
// The error is ErrForged, ErrForeignBucket, ErrForeignKey or ErrExpired; with
// ErrExpired the claims are valid.
func (k *Keyring) Check(token, bucket, object string, now time.Time) (Claims, error) {
	// An attacker chooses the length, so refuse before doing any work on it.
	if len(token) > MaxLen {
		return Claims{}, ErrForged
	}
	kid, encoded, _ := strings.Cut(token, ".")
	key := k.find(kid)
	if key == nil || len(encoded) != encoding.EncodedLen(blobLen) {
		return Claims{}, ErrForged
	}
	var buf [blobLen]byte
	// Decode skips line breaks, which would allow a second spelling of a token.
	if n, err := encoding.Decode(buf[:], []byte(encoded)); err != nil || n != blobLen {
		return Claims{}, ErrForged
	}
	head, tags := buf[:headLen], buf[headLen:]
	w := key.work(head)
	defer key.works.Put(w)
	var room [tagLen]byte
	want := room[:0]
	// hmac.Equal takes the same time wherever the first difference is, so that a
	// forger cannot find a tag byte by byte.
	if !hmac.Equal(tags[:tagLen], w.tag(want, "token")) {
		return Claims{}, ErrForged
	}
	if bucket != "" && !hmac.Equal(tags[tagLen:2*tagLen], w.tag(want, "bucket", bucket)) {
		return Claims{}, ErrForeignBucket
	}
	if object != "" && !hmac.Equal(tags[2*tagLen:], w.tag(want, "key", object)) {
		return Claims{}, ErrForeignKey
	}
	var wide [8]byte
	copy(wide[8-expiryLen:], head[idLen:])
	claims := Claims{
		UploadID: [16]byte(head[:idLen]),
		Expires:  time.Unix(int64(binary.BigEndian.Uint64(wide[:])), 0),
		Bucket:   bucket,
		Object:   object,
	}
	if !now.Before(claims.Expires) {
		return claims, ErrExpired
	}
	return claims, nil
}

// work begins the tags of one token with what all of them cover: a domain, the key id
// and the token's head. The caller returns it to k.works.
func (k *key) work(head []byte) *work {
	w := k.works.Get().(*work)
	w.input = appendPart(w.input[:0], "upcall upload token 1")
	w.input = appendPart(w.input, k.id)
	w.input = appendPart(w.input, head)
	w.common = len(w.input)
	return w
}

// tag appends to dst the first half of the HMAC over the common input and the parts, each
// preceded by its length so that no two inputs look alike when joined.
func (w *work) tag(dst []byte, parts ...string) []byte {
	w.input = w.input[:w.common]
	for _, part := range parts {
		w.input = appendPart(w.input, part)
	}
	w.mac.Reset()
	w.mac.Write(w.input)
	w.sum = w.mac.Sum(w.sum[:0])
	return append(dst, w.sum[:tagLen]...)
}

func appendPart[T string | []byte](dst []byte, part T) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(part)))
	return append(dst, part...)
}
