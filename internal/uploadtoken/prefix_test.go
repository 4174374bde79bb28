package uploadtoken

import (
	"errors"
	"strings"
	"testing"
)

// TestPrefix: a token over a prefix is good for each key under it, and one over a key for that key alone, whatever
// they have in common.
func TestPrefix(t *testing.T) {
	t.Parallel()
	k := ring(t, "k1:first-secret-0123456789")
	under := claims
	under.Object, under.Prefix = "photos/web/", true
	exactly := under
	exactly.Prefix = false
	unsized := under
	unsized.Size, unsized.ContentType, unsized.Queries, unsized.Shape = nil, "", nil, nil
	prefix, key, open := mint(t, k, under), mint(t, k, exactly), mint(t, k, unsized)
	flags := idLen + expiryLen
	flip := func(token string, change func(blob []byte) []byte) string {
		return "k1.2." + encoding.EncodeToString(change(decode(t, token)))
	}
	lengthAt := flags + 1 + sizeLen
	for _, tt := range []struct {
		name, token, object string
		want                error
	}{
		{"a key under it", prefix, "photos/web/cat.jpg", nil},
		{"another one", prefix, "photos/web/2026/a b+é.jpg", nil},
		{"with everything open", open, "photos/web/cat.jpg", nil},
		{"the prefix itself", prefix, "photos/web/", ErrForeignKey},
		{"the prefix cut short", prefix, "photos/web", ErrForeignKey},
		{"another folder", prefix, "photos/app/cat.jpg", ErrForeignKey},
		{"another folder, everything open", open, "photos/app/cat.jpg", ErrForeignKey},
		{"a folder beside it", prefix, "photos/web2/cat.jpg", ErrForeignKey},
		{"no key", prefix, "", ErrForeignKey},
		{"no key, everything open", open, "", ErrForeignKey},
		{"a token over the key for a key under it", key, "photos/web/cat.jpg", ErrForeignKey},
		{"a token over the key for itself", key, "photos/web/", nil},
		{"the flag taken out", flip(prefix, func(b []byte) []byte {
			b[flags] &^= hasPrefix
			return append(b[:lengthAt], b[lengthAt+prefixLen:]...)
		}), "photos/web/", ErrForged},
		{"the flag put in", flip(key, func(b []byte) []byte {
			b[flags] |= hasPrefix
			return append(b[:lengthAt], append([]byte{0, 11}, b[lengthAt:]...)...)
		}), "photos/web/cat.jpg", ErrForged},
		{"a shorter prefix", flip(prefix, func(b []byte) []byte { b[lengthAt+1]--; return b }), "photos/web/cat.jpg", ErrForged},
		{"no prefix at all", flip(prefix, func(b []byte) []byte { b[lengthAt+1] = 0; return b }), "x", ErrForged},
		{"a longer prefix than the key", flip(prefix, func(b []byte) []byte { b[lengthAt] = 0xff; return b }), "photos/web/cat.jpg", ErrForged},
		{"cut after the flags", flip(open, func(b []byte) []byte { return b[:flags+1+6*tagLen] }), "photos/web/cat.jpg", ErrForged},
	} {
		for _, notified := range []bool{false, true} {
			says := genuine
			says.Object, says.Notified = tt.object, notified
			if tt.token == open {
				says.Query = nil
				says.Fields = fields{"uid=42", "app=7"}
			}
			if _, err := k.Check(tt.token, says, now); !errors.Is(err, tt.want) && !(notified && errors.Is(err, errUnproven)) {
				t.Errorf("%s (notified %t): %v, want %v", tt.name, notified, err, tt.want)
			}
		}
	}
}

// TestPrefixTags: each of the tags over the key has a purpose of its own for a prefix, so that no part of a token over
// a prefix can be taken for the same part of one over a key.
func TestPrefixTags(t *testing.T) {
	t.Parallel()
	k := newKey("k1", "first-secret-0123456789")
	w := k.work(domain2, []byte("head"))
	key, prefix := w.start(keyPurpose(false)).text("a/").end(nil, tagLen), w.start(keyPurpose(true)).text("a/").end(nil, tagLen)
	if string(key) == string(prefix) {
		t.Error("a key and a prefix have the same tag")
	}
	if string(w.whole(nil, false, "b", "a/", "", nil, nil, nil)) == string(w.whole(nil, true, "b", "a/", "", nil, nil, nil)) {
		t.Error("the whole of a key and of a prefix have the same tag")
	}
}

// TestMintPrefix: a prefix that no key can have is refused.
func TestMintPrefix(t *testing.T) {
	t.Parallel()
	k := ring(t, "k1:first-secret-0123456789")
	long := claims
	long.Object, long.Prefix = strings.Repeat("a", 1<<16), true
	if _, err := k.Mint(long); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("a long prefix: %v", err)
	}
	long.Object = ""
	if _, err := k.Mint(long); err == nil || !strings.Contains(err.Error(), "no bucket or no object key") {
		t.Errorf("no prefix: %v", err)
	}
}
