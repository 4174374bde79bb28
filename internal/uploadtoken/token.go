// Package uploadtoken ties a callback to an upload that we issued, and to what was issued.
//
// The OSS signature does not do that: its key has 512 bits, it covers no time, and any
// OSS customer can have OSS sign a body of their choice for our URL. Therefore the issuer
// mints a token for each upload, the token travels as the custom variable x:upcall_token
// inside the signed body, and the receiver checks it against what the same body says.
//
// A token is
//
//	kid ".2." base64url( head | tags )
//	head = upload id [16] | expiry [5] | flags [1] | size [6] | prefix length [2] | shape
//	tags = token | bucket | key | vars | rest | whole | type, each [12] | queries, each [8]
//
// where the expiry is in seconds since 1970, big endian like the size. The size and the
// type's tag are there if the URL fixes them, the shape if the template is not the default
// one, and the queries if the callback URLs have different ones; flags say so. Each tag is
// the beginning of an HMAC-SHA-256 under the secret that kid names, over the key id, the
// head and what the tag is for:
//
//   - bucket, key: where the upload goes. A token over a prefix of the key has a tag of another
//     purpose in the place of the key's, and in that of the whole: neither reads as the other;
//   - vars: the custom variables with their values;
//   - rest: whatever else the template fixes, and the query if all callback URLs have the same;
//   - type: the media type;
//   - a query: that of a callback URL;
//   - whole: all of these but the queries, so that one HMAC is enough for a genuine callback.
//
// The others say what is wrong with one that is not genuine, and let parts be missing. With
// 96 bits each, a forger has one chance in 2^96 per request; 64 are enough for a query,
// which is of no use without the rest.
//
// Tokens of version 1, which bind bucket and key only, count until they expire.
package uploadtoken

import (
	"bytes"
	"crypto/hmac"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// MaxLen is the maximum length of a token in bytes.
const MaxLen = 200

// MaxQueries is how many callback URLs with different queries an upload may have.
const MaxQueries = 5

const (
	idLen     = 16
	expiryLen = 5
	sizeLen   = 6
	prefixLen = 2
	tagLen    = 12
	queryLen  = 8
)

// The tags in their order. The type's may be missing.
const (
	tokenTag = iota
	bucketTag
	keyTag
	varsTag
	restTag
	wholeTag
	typeTag
)

// flags
const (
	hasSize    = 1 << 0
	hasType    = 1 << 1
	queryShift = 2 // three bits: how many queries follow
	hasPrefix  = 1 << 5
	knownFlags = hasSize | hasType | 7<<queryShift | hasPrefix
)

const version2 = "2."

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
	// ErrForeignVars means a genuine token of an upload whose callback has other fields:
	// other custom variables, constants or names, or another query.
	ErrForeignVars = errors.New("upload token is for other variables or another template")
	// ErrForeignType means a genuine token of an upload with another content type.
	ErrForeignType = errors.New("upload token is for another content type")
	// ErrForeignSize means a genuine token of an upload of another size.
	ErrForeignSize = errors.New("upload token is for another size")
	// ErrExpired means a genuine token for this callback that has expired. Check returns
	// its claims, too.
	ErrExpired  = errors.New("upload token has expired")
	errUnproven = errors.New("upload token does not tell about the variables")
	// ErrTooLong means that the template and the callback URLs need a token longer than
	// MaxLen.
	ErrTooLong = errors.New("upload token would be too long")
)

// Claims are the content of a token.
type Claims struct {
	Version     int       // 1 or 2; set by Check alone
	UploadID    [16]byte  // a UUID
	Expires     time.Time // whole seconds; the token is valid until then
	Bucket      string
	Object      string // the full object key, or its beginning
	Prefix      bool   // the uploader chooses what follows Object, at least one byte. Receivers before it refuse such a token
	ContentType string // "" leaves it open; parameters do not count
	Size        *int64 // bytes, below 2^48; nil leaves it open
	Terms

	// Unproven says, of a token that came with a notification, that it does not tell whether the
	// custom variables are those that were issued. Set by Check alone.
	Unproven bool
}

// Terms are what an upload fixes of the callback's fields and of the callback URLs, in
// the canonical form of package callbackspec. The zero value is a form of the default
// template, without custom variables and queries.
type Terms struct {
	Shape   []byte   // how the fields are told apart; nil is that of the default template
	Vars    []byte   // the custom variables
	Rest    []byte   // whatever else is fixed
	Queries [][]byte // of the callback URLs, each once; at most MaxQueries; nil is none
}

// A Callback is what a callback says about its upload.
type Callback struct {
	Bucket   string // "" if it does not say, as with all others
	Object   string
	MimeType string
	Size     *int64
	Query    []byte // of the callback URL, as in Terms
	Fields   Fields // nil is none

	// Notified says that a notification of OSS says this, not a callback: of what the template
	// and the URLs fix it has the custom variables at most, as Fields of a default template.
	Notified bool
}

// Fields are those of a callback's body. It is an interface, because how they are told
// apart depends on the template, and the token says how.
type Fields interface {
	Terms(shape []byte) (vars, rest []byte)
}

// Mint returns the token for c under the first key. It fails if a claim is missing or out
// of range, or with ErrTooLong.
func (k *Keyring) Mint(c Claims) (string, error) {
	seconds := c.Expires.Unix()
	switch {
	case c.UploadID == [16]byte{}:
		return "", errors.New("mint upload token: no upload id")
	case c.Bucket == "" || c.Object == "":
		return "", errors.New("mint upload token: no bucket or no object key")
	case seconds <= 0 || seconds >= 1<<(8*expiryLen):
		return "", fmt.Errorf("mint upload token: expiry %s is out of range", c.Expires.UTC().Format(time.RFC3339))
	case c.Size != nil && (*c.Size < 0 || *c.Size >= 1<<(8*sizeLen)):
		return "", fmt.Errorf("mint upload token: size %d is out of range", *c.Size)
	case c.Prefix && len(c.Object) >= 1<<(8*prefixLen):
		return "", fmt.Errorf("mint upload token: a prefix of %d bytes is too long", len(c.Object))
	case len(c.Queries) > MaxQueries:
		return "", fmt.Errorf("mint upload token: %d queries are too many", len(c.Queries))
	}
	// A query that all URLs have is part of the rest.
	var query []byte
	var queries [][]byte
	if len(c.Queries) == 1 {
		query = c.Queries[0]
	} else {
		queries = c.Queries
	}
	media := mediaType(c.ContentType)
	flags := byte(len(queries) << queryShift)
	var room [MaxLen]byte
	blob := append(room[:0], c.UploadID[:]...)
	blob = appendUint(blob, uint64(seconds), expiryLen)
	blob = append(blob, 0)
	if c.Size != nil {
		flags |= hasSize
		blob = appendUint(blob, uint64(*c.Size), sizeLen)
	}
	if c.Prefix {
		flags |= hasPrefix
		blob = appendUint(blob, uint64(len(c.Object)), prefixLen)
	}
	if media != "" {
		flags |= hasType
	}
	blob[idLen+expiryLen] = flags
	blob = append(blob, c.Shape...)

	key := k.keys[0]
	w := key.work(domain2, blob)
	defer key.works.Put(w)
	blob = w.start("token").end(blob, tagLen)
	blob = w.start("bucket").text(c.Bucket).end(blob, tagLen)
	blob = w.start(keyPurpose(c.Prefix)).text(c.Object).end(blob, tagLen)
	blob = w.start("vars").bytes(c.Vars).end(blob, tagLen)
	blob = w.start("rest").bytes(c.Rest).bytes(query).end(blob, tagLen)
	blob = w.whole(blob, c.Prefix, c.Bucket, c.Object, media, c.Vars, c.Rest, query)
	if media != "" {
		blob = w.start("type").text(media).end(blob, tagLen)
	}
	for _, query := range queries {
		blob = w.start("query").bytes(query).end(blob, queryLen)
	}
	token := append(make([]byte, 0, MaxLen), key.id...)
	token = append(append(token, '.'), version2...)
	token = encoding.AppendEncode(token, blob)
	if len(token) > MaxLen {
		return "", ErrTooLong
	}
	return string(token), nil
}

// Check tells whether token was minted, by any of the keys, for an upload whose callback
// says what this one says, and is still valid at the time now. What the callback does not
// say is not checked, which gains an attacker nothing, because the callback then claims
// nothing about it.
//
// The error is one of this package; with ErrExpired the claims are valid.
func (k *Keyring) Check(token string, c Callback, now time.Time) (Claims, error) {
	// An attacker chooses the length, so refuse before doing any work on it.
	if len(token) > MaxLen {
		return Claims{}, ErrForged
	}
	kid, encoded, _ := strings.Cut(token, ".")
	key := k.find(kid)
	if key == nil {
		return Claims{}, ErrForged
	}
	rest, second := strings.CutPrefix(encoded, version2)
	check, version := key.check1, 1
	if second {
		check, version = key.check2, 2
	}
	head, err := check(rest, c)
	unproven := errors.Is(err, errUnproven)
	if err != nil && !unproven {
		return Claims{}, err
	}
	claims := Claims{
		Version:  version,
		UploadID: [16]byte(head[:idLen]),
		Expires:  time.Unix(int64(uintOf(head[idLen:idLen+expiryLen])), 0),
		Bucket:   c.Bucket,
		Object:   c.Object,
		Unproven: unproven,
	}
	if !now.Before(claims.Expires) {
		return claims, ErrExpired
	}
	return claims, nil
}

// A head is the beginning of a token's blob, with upload id and expiry.
type head [idLen + expiryLen]byte

// check2 checks what follows the version.
func (k *key) check2(encoded string, c Callback) (start head, err error) {
	var room [MaxLen]byte
	// Decode skips line breaks, which would allow a second spelling of a token.
	n, err := encoding.Decode(room[:], []byte(encoded))
	if err != nil || n != encoding.DecodedLen(len(encoded)) {
		return start, ErrForged
	}
	blob := room[:n]
	if n < len(start)+1 || blob[len(start)]&^knownFlags != 0 {
		return start, ErrForged
	}
	flags := blob[copy(start[:], blob)]
	shape, tags := len(start)+1, typeTag*tagLen
	if flags&hasSize != 0 {
		shape += sizeLen
	}
	if flags&hasType != 0 {
		tags += tagLen
	}
	if flags&hasPrefix != 0 {
		shape += prefixLen
	}
	queries := int(flags>>queryShift&7) * queryLen
	if n < shape+tags+queries {
		return start, ErrForged
	}
	head, queryTags := blob[:n-tags-queries], blob[n-queries:]
	tag := func(which int) []byte { return blob[len(head)+which*tagLen:][:tagLen] }

	var vars, others []byte
	if c.Fields != nil {
		vars, others = c.Fields.Terms(bytes.Clone(head[shape:])) // or all of room would be on the heap
	}
	media, query := "", c.Query
	if flags&hasType != 0 {
		media = mediaType(c.MimeType)
	}
	if queries > 0 {
		query = nil
	}
	prefix, object, otherKey := flags&hasPrefix != 0, c.Object, false
	if prefix {
		length := int(uintOf(head[shape-prefixLen : shape]))
		// Of the prefix alone nothing would be the uploader's, and without a key nothing would be of the prefix.
		otherKey = len(object) <= length
		object = object[:min(length, len(object))]
	}
	otherSize := flags&hasSize != 0 && c.Size != nil && uint64(*c.Size) != uintOf(head[len(start)+1:][:sizeLen])
	w := k.work(domain2, head)
	defer k.works.Put(w)
	var space [tagLen]byte
	want := space[:0]
	// hmac.Equal takes the same time wherever the first difference is, so that a
	// forger cannot find a tag byte by byte.
	whole := hmac.Equal(tag(wholeTag), w.whole(want, prefix, c.Bucket, object, media, vars, others, query))
	if c.Notified || otherKey || !whole {
		switch {
		case !hmac.Equal(tag(tokenTag), w.start("token").end(want, tagLen)):
			return start, ErrForged
		case c.Bucket != "" && !hmac.Equal(tag(bucketTag), w.start("bucket").text(c.Bucket).end(want, tagLen)):
			return start, ErrForeignBucket
		case otherKey, object != "" && !hmac.Equal(tag(keyTag), w.start(keyPurpose(prefix)).text(object).end(want, tagLen)):
			return start, ErrForeignKey
		case flags&hasType != 0 && c.MimeType != "" && !hmac.Equal(tag(typeTag), w.start("type").text(media).end(want, tagLen)):
			return start, ErrForeignType
		case otherSize: // before the variables, which a field for the size may be one of
			return start, ErrForeignSize
		case !hmac.Equal(tag(varsTag), w.start("vars").bytes(vars).end(want, tagLen)):
			// A template of its own may not have all variables, or have them under other names.
			if c.Notified && len(head) > shape {
				return start, errUnproven
			}
			return start, ErrForeignVars
		case !c.Notified && !hmac.Equal(tag(restTag), w.start("rest").bytes(others).bytes(query).end(want, tagLen)):
			return start, ErrForeignVars
		}
	}
	if !c.Notified && queries > 0 && !contains(queryTags, w.start("query").bytes(c.Query).end(want, queryLen)) {
		return start, ErrForeignVars
	}
	if otherSize {
		return start, ErrForeignSize
	}
	return start, nil
}

// contains compares with every query, so that the time does not say which one it is like.
func contains(queries, want []byte) bool {
	found := false
	for ; len(queries) > 0; queries = queries[queryLen:] {
		if hmac.Equal(queries[:queryLen], want) {
			found = true
		}
	}
	return found
}

// mediaType returns what counts of a content type: nobody knows how OSS spells case and
// parameters when it reports one. The letters of media types are ASCII, and what Unicode
// makes of others, such as the i of U+0130, is another type.
func mediaType(contentType string) string {
	kind, _, _ := strings.Cut(contentType, ";")
	kind = strings.Trim(kind, " \t")
	if strings.ContainsFunc(kind, func(c rune) bool { return c >= utf8.RuneSelf }) {
		return kind
	}
	return strings.ToLower(kind)
}

func appendUint(dst []byte, n uint64, size int) []byte {
	var wide [8]byte
	binary.BigEndian.PutUint64(wide[:], n)
	return append(dst, wide[8-size:]...)
}

func uintOf(b []byte) uint64 {
	var wide [8]byte
	copy(wide[8-len(b):], b)
	return binary.BigEndian.Uint64(wide[:])
}
