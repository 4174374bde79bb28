// Package ossrule holds the rules of Alibaba Cloud OSS for buckets, keys and sizes. The
// issuer applies them before it signs, and the emulator as OSS does.
package ossrule

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"upcall/internal/fault"
)

// How long a V4 presigned URL may be valid (EC 0002-00000232).
const (
	MinExpiry = time.Second
	MaxExpiry = 7 * 24 * time.Hour
)

// Sizes of objects and parts, in bytes.
const (
	MaxPut    = 5 << 30   // of one PutObject or PostObject
	MinPart   = 100 << 10 // the last part may be smaller
	MaxPart   = 5 << 30
	MaxParts  = 10_000
	MaxObject = MaxParts * MaxPart // 48.8 TB, in parts

	// PageOfParts is how many parts OSS lists in one response.
	PageOfParts = 1000
)

// Limits on what is stored with an object.
const (
	maxKey     = 1023 // bytes of UTF-8
	MetaPrefix = "x-oss-meta-"
	MaxMeta    = 8 << 10 // bytes of all user metadata together
)

// StorageClasses are the values of x-oss-storage-class.
var StorageClasses = []string{"Standard", "IA", "Archive", "ColdArchive", "DeepColdArchive"}

// ACLs are the values of x-oss-object-acl.
var ACLs = []string{"default", "private", "public-read", "public-read-write"}

// StoredHeaders are the headers outside x-oss-* that OSS keeps with an object.
var StoredHeaders = []string{"cache-control", "content-disposition", "content-encoding", "content-language", "expires"}

// The rules of [CheckBucket] and [CheckKey].
var (
	ErrBucket = errors.New("bucket name")
	ErrKey    = errors.New("object key")
)

// IsName reports whether s holds only lower-case letters, digits and hyphens, as the names
// of buckets, regions and headers do. The empty string passes.
func IsName(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '-')
	})
}

// Escape percent-encodes everything but RFC 3986's unreserved characters, in upper-case
// hex. OSS does so to sign, to list, and to fill in form bodies, as genuine callbacks show.
func Escape(text string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(text) {
		c := text[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~' {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(hex[c>>4])
		b.WriteByte(hex[c&15])
	}
	return b.String()
}

// CheckBucket returns a [fault.Fault] if no bucket can have that name.
func CheckBucket(name string) error {
	bad := func(fix, problem string, args ...any) error {
		return fault.New(ErrBucket, "bucket", fix, "%q "+problem, append([]any{name}, args...)...)
	}
	switch {
	case name == "":
		return fault.New(ErrBucket, "bucket", "give its name", "is empty")
	case !IsName(name):
		return bad("use lower-case letters, digits and hyphens", "holds a character that bucket names cannot have")
	case len(name) < 3 || len(name) > 63:
		return bad("OSS allows 3 to 63", "has %d characters", len(name))
	case strings.Trim(name, "-") != name:
		return bad("start and end with a letter or digit", "starts or ends with a hyphen")
	}
	return nil
}

// MaxFolders is how many folders a prefix may name. The ledger is searched for each of them, so there must be a limit.
const MaxFolders = 16

// maxPrefix leaves a key enough bytes for the name of a file.
const maxPrefix = maxKey - 255

// CheckPrefix returns a [fault.Fault] if text cannot be the beginning of keys of a form. It is a folder, so that no
// prefix is also that of a neighbor: user1 would also be the beginning of user10/cat.jpg.
func CheckPrefix(text string) error {
	bad := func(fix, problem string, args ...any) error {
		return fault.New(ErrKey, "key-prefix", fix, problem, args...)
	}
	switch {
	case text == "":
		return bad("give a folder, such as photos/42/", "is empty")
	case !strings.HasSuffix(text, "/"):
		return bad("write "+fault.Short(text)+"/", "does not end with a slash")
	case len(text) > maxPrefix:
		return bad(fmt.Sprintf("give at most %d, which leaves room for a file name", maxPrefix), "has %d bytes", len(text))
	case strings.Count(text, "/") > MaxFolders:
		return bad(fmt.Sprintf("give at most %d", MaxFolders), "has %d folders", strings.Count(text, "/"))
	case !utf8.ValidString(text) || strings.ContainsRune(text, 0):
		return bad("give it in UTF-8", "is not UTF-8, or holds a NUL")
	case text[0] == '/' || text[0] == '\\':
		return bad("leave it out: keys have no leading separator", "starts with %q", text[0])
	case strings.Contains(text, "${"):
		return bad("leave it out: OSS would fill in the file's name", "holds ${")
	}
	return nil
}

// CheckKey returns a [fault.Fault] if no object can have that key.
func CheckKey(key string) error {
	bad := func(fix, problem string, args ...any) error { return fault.New(ErrKey, "key", fix, problem, args...) }
	switch {
	case key == "":
		return bad("give the object's key", "is empty")
	case len(key) > maxKey:
		return bad("OSS allows 1023", "has %d bytes", len(key))
	case !utf8.ValidString(key):
		return bad("give it in UTF-8", "is not UTF-8")
	case key[0] == '/' || key[0] == '\\':
		return bad("leave it out: keys have no leading separator", "starts with %q", key[0])
	}
	return nil
}
