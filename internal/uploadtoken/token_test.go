package uploadtoken

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	now    = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	claims = Claims{
		UploadID: [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
		Expires:  now.Add(time.Hour),
		Bucket:   "demo",
		Object:   "photos/2026/a b+c~é.jpg",
	}
)

func ring(t testing.TB, s string) *Keyring {
	t.Helper()
	k, err := ParseKeys(s)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func mint(t testing.TB, k *Keyring, c Claims) string {
	t.Helper()
	token, err := k.Mint(c)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func decode(t testing.TB, token string) []byte {
	t.Helper()
	_, encoded, _ := strings.Cut(token, ".")
	blob, err := encoding.DecodeString(encoded)
	if err != nil {
		t.Fatal(err)
	}
	return blob
}

func TestCheckRefuses(t *testing.T) {
	t.Parallel()
	k := ring(t, "k2:second-secret-0123456789,k1:first-secret-0123456789")
	token := mint(t, k, claims)
	_, blob, _ := strings.Cut(token, ".")
	flip := func(at int) string {
		c := byte('A')
		if token[at] == 'A' {
			c = 'B'
		}
		return token[:at] + string(c) + token[at+1:]
	}
	other := claims
	other.UploadID[0]++
	other.Object = "photos/other.jpg"
	mixed := decode(t, token)
	copy(mixed[headLen+2*tagLen:], decode(t, mint(t, k, other))[headLen+2*tagLen:])
	tests := []struct {
		name           string
		token          string
		bucket, object string
		at             time.Time
		want           error
	}{
		{"empty", "", claims.Bucket, claims.Object, now, ErrForged},
		{"no dot", blob, claims.Bucket, claims.Object, now, ErrForged},
		{"no key id", "." + blob, claims.Bucket, claims.Object, now, ErrForged},
		{"unknown key id", "k9." + blob, claims.Bucket, claims.Object, now, ErrForged},
		{"key id of another key", "k1." + blob, claims.Bucket, claims.Object, now, ErrForged},
		{"upper-case key id", "K2." + blob, claims.Bucket, claims.Object, now, ErrForged},
		{"cut short", token[:len(token)-1], claims.Bucket, claims.Object, now, ErrForged},
		{"one letter too many", token + "A", claims.Bucket, claims.Object, now, ErrForged},
		{"padded", token + "=", claims.Bucket, claims.Object, now, ErrForged},
		{"line break inside", token[:40] + "\n" + token[40:], claims.Bucket, claims.Object, now, ErrForged},
		{"line break for a letter", token[:40] + "\n" + token[41:], claims.Bucket, claims.Object, now, ErrForged},
		{"standard alphabet", strings.NewReplacer("-", "+", "_", "/").Replace(token) + "+", claims.Bucket, claims.Object, now, ErrForged},
		{"one megabyte", strings.Repeat("A", 1<<20), claims.Bucket, claims.Object, now, ErrForged},
		{"other upload id", flip(4), claims.Bucket, claims.Object, now, ErrForged},
		{"other expiry", flip(30), claims.Bucket, claims.Object, now, ErrForged},
		{"other token tag", flip(40), claims.Bucket, claims.Object, now, ErrForged},
		{"other bucket tag", flip(60), claims.Bucket, claims.Object, now, ErrForeignBucket},
		{"other key tag", flip(85), claims.Bucket, claims.Object, now, ErrForeignKey},
		{"foreign bucket", token, "prod", claims.Object, now, ErrForeignBucket},
		{"bucket in another case", token, "Demo", claims.Object, now, ErrForeignBucket},
		{"foreign key", token, claims.Bucket, "photos/other.jpg", now, ErrForeignKey},
		{"boundary of bucket and key moved", token, "demop", "hotos/2026/a b+c~é.jpg", now, ErrForeignBucket},
		{"key tag of another token", "k2." + encoding.EncodeToString(mixed), claims.Bucket, other.Object, now, ErrForeignKey},
		{"expired this second", token, claims.Bucket, claims.Object, claims.Expires, ErrExpired},
		{"expired long ago", token, claims.Bucket, claims.Object, now.AddDate(1, 0, 0), ErrExpired},
		{"expired and foreign", token, claims.Bucket, "x", now.AddDate(1, 0, 0), ErrForeignKey},
		{"foreign key, no bucket named", token, "", "photos/other.jpg", now, ErrForeignKey},
		{"foreign bucket, no key named", token, "prod", "", now, ErrForeignBucket},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, err := k.Check(tt.token, tt.bucket, tt.object, tt.at); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestCheckAccepts(t *testing.T) {
	t.Parallel()
	old := ring(t, "k1:first-secret-0123456789")
	rotated := ring(t, "k2:second-secret-0123456789,k1:first-secret-0123456789")
	token := mint(t, old, claims)
	for name, k := range map[string]*Keyring{"same keys": old, "after rotation": rotated} {
		got, err := k.Check(token, claims.Bucket, claims.Object, now)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(claims.Expires.Unix(), got.Expires.Unix()); diff != "" || got.UploadID != claims.UploadID {
			t.Errorf("%s: claims changed: %v %s", name, got, diff)
		}
	}
	if _, err := rotated.Check(token, "", "", now); err != nil {
		t.Errorf("a callback that names neither: %v", err)
	}
	if _, err := rotated.Check(token, "", claims.Object, now); err != nil {
		t.Errorf("a callback that names the object only: %v", err)
	}
	if _, err := rotated.Check(token, claims.Bucket, "", now); err != nil {
		t.Errorf("a callback that names the bucket only: %v", err)
	}
	if got, err := old.Check(token, claims.Bucket, claims.Object, claims.Expires); !errors.Is(err, ErrExpired) ||
		got.UploadID != claims.UploadID {
		t.Errorf("expired token: got %v, %v; want its claims and ErrExpired", got, err)
	}
}

func TestLength(t *testing.T) {
	t.Parallel()
	k := ring(t, strings.Repeat("k", maxKeyID)+":secret-0123456789")
	long := claims
	long.Object = strings.Repeat("x", 1023)
	long.Expires = time.Unix(1<<39, 0)
	if token := mint(t, k, long); len(token) > MaxLen {
		t.Errorf("token has %d bytes, limit %d", len(token), MaxLen)
	}
}

func TestMintRefuses(t *testing.T) {
	t.Parallel()
	k := ring(t, "k1:first-secret-0123456789")
	for name, tt := range map[string]struct {
		change func(*Claims)
		want   string
	}{
		"no upload id":  {func(c *Claims) { c.UploadID = [16]byte{} }, "no upload id"},
		"no bucket":     {func(c *Claims) { c.Bucket = "" }, "no bucket or no object key"},
		"no object key": {func(c *Claims) { c.Object = "" }, "no bucket or no object key"},
		"no expiry":     {func(c *Claims) { c.Expires = time.Time{} }, "expiry 0001-01-01T00:00:00Z is out of range"},
		"far expiry":    {func(c *Claims) { c.Expires = time.Unix(1<<40, 0) }, "expiry 36812-02-20T00:36:16Z is out of range"},
	} {
		c := claims
		tt.change(&c)
		if token, err := k.Mint(c); err == nil || token != "" || err.Error() != "mint upload token: "+tt.want {
			t.Errorf("%s: minted %q, %v", name, token, err)
		}
	}
}

func TestParseKeysRefuses(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                    "key 1 is not kid:secret",
		"hunter2":             "key 1 is not kid:secret",
		"k1:":                 "key 1 is not kid:secret",
		":hunter2":            "key 1: the key id is not 1 to 24 lower-case letters, digits, hyphens or underscores",
		"K1:hunter2":          "key 1: the key id is not 1 to 24 lower-case letters, digits, hyphens or underscores",
		"k.1:hunter2":         "key 1: the key id is not 1 to 24 lower-case letters, digits, hyphens or underscores",
		"k1:a,k1:b":           "key 2: the key id k1 is used twice",
		"k1:a,,k2:b":          "key 2 is not kid:secret",
		"k1:hunter2,K2:b,bad": "key 2: the key id is not 1 to 24 lower-case letters, digits, hyphens or underscores\nkey 3 is not kid:secret",
	} {
		_, err := ParseKeys(in)
		if err == nil || err.Error() != want {
			t.Errorf("ParseKeys(%q): %v, want %s", in, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("ParseKeys(%q): the error contains the secret", in)
		}
	}
}

func TestKeyringHidesSecrets(t *testing.T) {
	t.Parallel()
	k := ring(t, "k1:hunter2")
	if got := k.String(); strings.Contains(got, "hunter2") {
		t.Errorf("String shows the secret: %s", got)
	}
	if diff := cmp.Diff([]string{"k1"}, k.Weak()); diff != "" {
		t.Error(diff)
	}
}

// FuzzCheck looks for a token that is accepted although Mint did not write it.
func FuzzCheck(f *testing.F) {
	k := ring(f, "k2:second-secret-0123456789,k1:first-secret-0123456789")
	token := mint(f, k, claims)
	f.Add(token)
	f.Add("")
	f.Add("k1.")
	f.Add(token[:60])
	f.Fuzz(func(t *testing.T, s string) {
		_, err := k.Check(s, claims.Bucket, claims.Object, now)
		if (err == nil) != (s == token) {
			t.Errorf("Check(%q) = %v", s, err)
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	k := ring(b, "k1:first-secret-0123456789")
	token := mint(b, k, claims)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.Check(token, claims.Bucket, claims.Object, now); err != nil {
			b.Fatal(err)
		}
	}
}
