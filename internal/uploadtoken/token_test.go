package uploadtoken

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	now    = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	size   = int64(5)
	claims = Claims{
		UploadID:    [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
		Expires:     now.Add(time.Hour),
		Bucket:      "demo",
		Object:      "photos/2026/a b+c~é.jpg",
		ContentType: "Image/JPEG; q=1",
		Size:        &size,
		Terms: Terms{
			Shape: []byte{1, 2, 3}, Vars: []byte("uid=42"), Rest: []byte("app=7"),
			Queries: [][]byte{[]byte("id=1"), []byte("id=2"), nil},
		},
	}
	genuine = Callback{
		Bucket: claims.Bucket, Object: claims.Object, MimeType: "image/jpeg", Size: &size,
		Query: []byte("id=1"), Fields: fields{"uid=42", "app=7"},
	}
)

// fields are a callback's, in the form that both sides agree upon.
type fields struct{ vars, rest string }

func (f fields) Terms([]byte) (vars, rest []byte) { return []byte(f.vars), []byte(f.rest) }

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
	_, encoded, _ := strings.Cut(token, ".2.")
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
	blob := decode(t, token)
	const head = idLen + expiryLen + 1 + sizeLen + 3
	_, encoded, _ := strings.Cut(token, ".2.")
	flip := func(at int) string {
		changed := bytes.Clone(blob)
		changed[at] ^= 1
		return "k2.2." + encoding.EncodeToString(changed)
	}
	other := claims
	other.UploadID[0]++
	other.Object = "photos/other.jpg"
	mixed := decode(t, mint(t, k, other))
	copy(mixed, blob[:head+2*tagLen])
	says := func(change func(*Callback)) Callback {
		c := genuine
		change(&c)
		return c
	}
	other6 := size + 1
	tests := []struct {
		name  string
		token string
		says  Callback
		at    time.Time
		want  error
	}{
		{"empty", "", genuine, now, ErrForged},
		{"no dot", encoded, genuine, now, ErrForged},
		{"no key id", ".2." + encoded, genuine, now, ErrForged},
		{"no version", "k2." + encoded, genuine, now, ErrForged},
		{"another version", "k2.3." + encoded, genuine, now, ErrForged},
		{"version twice", "k2.2.2." + encoded, genuine, now, ErrForged},
		{"unknown key id", "k9.2." + encoded, genuine, now, ErrForged},
		{"key id of another key", "k1.2." + encoded, genuine, now, ErrForged},
		{"upper-case key id", "K2.2." + encoded, genuine, now, ErrForged},
		{"nothing but a version", "k2.2.", genuine, now, ErrForged},
		{"cut short", token[:len(token)-1], genuine, now, ErrForged},
		{"cut to half", token[:len(token)/2], genuine, now, ErrForged},
		{"longer", token + "A", genuine, now, ErrForged},
		{"four letters longer", token + "AAAA", genuine, now, ErrForged},
		{"padded", token + "=", genuine, now, ErrForged},
		{"line break inside", token[:40] + "\n" + token[40:], genuine, now, ErrForged},
		{"line break for a letter", token[:40] + "\n" + token[41:], genuine, now, ErrForged},
		{"standard alphabet", strings.NewReplacer("-", "+", "_", "/").Replace(token) + "+", genuine, now, ErrForged},
		{"one megabyte", strings.Repeat("A", 1<<20), genuine, now, ErrForged},
		{"other upload id", flip(4), genuine, now, ErrForged},
		{"other expiry", flip(idLen + 2), genuine, now, ErrForged},
		{"size open", flip(idLen + expiryLen), genuine, now, ErrForged},
		{"other size", flip(idLen + expiryLen + 1 + sizeLen - 1), genuine, now, ErrForged},
		{"other shape", flip(head - 1), genuine, now, ErrForged},
		{"other token tag", flip(head), says(func(c *Callback) { c.Bucket = "" }), now, ErrForged},
		{"other bucket tag", flip(head + tagLen), says(func(c *Callback) { c.MimeType = "" }), now, ErrForeignBucket},
		{"other key tag", flip(head + 2*tagLen), says(func(c *Callback) { c.MimeType = "" }), now, ErrForeignKey},
		{"other vars tag", flip(head + 3*tagLen), says(func(c *Callback) { c.MimeType = "" }), now, ErrForeignVars},
		{"other rest tag", flip(head + 4*tagLen), says(func(c *Callback) { c.MimeType = "" }), now, ErrForeignVars},
		{"other type tag", flip(head + 6*tagLen), says(func(c *Callback) { c.Bucket = "" }), now, ErrForeignType},
		{"other query tag", flip(head + 7*tagLen), genuine, now, ErrForeignVars},
		{"key tag of another token", "k2.2." + encoding.EncodeToString(mixed), says(func(c *Callback) { c.Object = other.Object }), now, ErrForeignKey},

		{"foreign bucket", token, says(func(c *Callback) { c.Bucket = "prod" }), now, ErrForeignBucket},
		{"bucket in another case", token, says(func(c *Callback) { c.Bucket = "Demo" }), now, ErrForeignBucket},
		{"foreign key", token, says(func(c *Callback) { c.Object = "photos/other.jpg" }), now, ErrForeignKey},
		{"bucket and key run together", token,
			says(func(c *Callback) { c.Bucket, c.Object = "demop", "hotos/2026/a b+c~é.jpg" }), now, ErrForeignBucket},
		{"foreign key, no bucket named", token, says(func(c *Callback) { c.Bucket, c.Object = "", "x" }), now, ErrForeignKey},
		{"foreign bucket, no key named", token, says(func(c *Callback) { c.Bucket, c.Object = "prod", "" }), now, ErrForeignBucket},
		{"other variables", token, says(func(c *Callback) { c.Fields = fields{"uid=1", "app=7"} }), now, ErrForeignVars},
		{"no variables", token, says(func(c *Callback) { c.Fields = nil }), now, ErrForeignVars},
		{"other rest", token, says(func(c *Callback) { c.Fields = fields{"uid=42", "app=8"} }), now, ErrForeignVars},
		{"moved from one to the other", token, says(func(c *Callback) { c.Fields = fields{"uid=42app", "=7"} }), now, ErrForeignVars},
		{"other variables, nothing else named", token, Callback{Query: genuine.Query, Fields: fields{"uid=1", "app=7"}}, now, ErrForeignVars},
		{"other query", token, says(func(c *Callback) { c.Query = []byte("id=3") }), now, ErrForeignVars},
		{"other type", token, says(func(c *Callback) { c.MimeType = "text/html" }), now, ErrForeignType},
		{"parameters without a type", token, says(func(c *Callback) { c.MimeType = ";image/jpeg" }), now, ErrForeignType},
		{"a type of spaces", token, says(func(c *Callback) { c.MimeType = " " }), now, ErrForeignType},
		{"other letters of Unicode", token, says(func(c *Callback) { c.MimeType = "\u0130mage/jpeg" }), now, ErrForeignType},
		{"other size", token, says(func(c *Callback) { c.Size = &other6 }), now, ErrForeignSize},
		{"other size and variables", token, says(func(c *Callback) { c.Size, c.Fields = &other6, nil }), now, ErrForeignSize},

		{"expired this second", token, genuine, claims.Expires, ErrExpired},
		{"expired long ago", token, genuine, now.AddDate(1, 0, 0), ErrExpired},
		{"expired and foreign", token, says(func(c *Callback) { c.Object = "x" }), now.AddDate(1, 0, 0), ErrForeignKey},
		{"expired, with other variables", token, says(func(c *Callback) { c.Fields = nil }), now.AddDate(1, 0, 0), ErrForeignVars},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, err := k.Check(tt.token, tt.says, tt.at); !errors.Is(err, tt.want) {
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
		got, err := k.Check(token, genuine, now)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(claims.Expires.Unix(), got.Expires.Unix()); diff != "" || got.UploadID != claims.UploadID {
			t.Errorf("%s: claims changed: %v %s", name, got, diff)
		}
	}
	for name, change := range map[string]func(*Callback){
		"no bucket and no object": func(c *Callback) { c.Bucket, c.Object = "", "" },
		"no bucket":               func(c *Callback) { c.Bucket = "" },
		"no object":               func(c *Callback) { c.Object = "" },
		"no type":                 func(c *Callback) { c.MimeType = "" },
		"no size":                 func(c *Callback) { c.Size = nil },
		"nothing but the fields":  func(c *Callback) { *c = Callback{Query: c.Query, Fields: c.Fields} },
		"type in another case":    func(c *Callback) { c.MimeType = "IMAGE/jpeg" },
		"type with a parameter":   func(c *Callback) { c.MimeType = "image/jpeg ;charset=utf-8" },
		"second URL":              func(c *Callback) { c.Query = []byte("id=2") },
		"third URL, no query":     func(c *Callback) { c.Query = nil },
	} {
		c := genuine
		change(&c)
		if _, err := rotated.Check(token, c, now); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, err := old.Check(token, genuine, claims.Expires); !errors.Is(err, ErrExpired) || got.UploadID != claims.UploadID {
		t.Errorf("expired token: got %v, %v; want its claims and ErrExpired", got, err)
	}
	// What is open may be anything.
	open := claims
	open.ContentType, open.Size = "", nil
	big := int64(1 << 40)
	c := genuine
	c.MimeType, c.Size = "text/html", &big
	if _, err := old.Check(mint(t, old, open), c, now); err != nil {
		t.Errorf("open type and size: %v", err)
	}
}

// TestOneQuery: what all callback URLs have in common needs no tag of its own.
func TestOneQuery(t *testing.T) {
	t.Parallel()
	k := ring(t, "k1:first-secret-0123456789")
	for name, queries := range map[string][][]byte{"none": nil, "one": {[]byte("id=1")}} {
		c := claims
		c.Queries = queries
		token := mint(t, k, c)
		for _, query := range []string{"", "id=1", "id=2"} {
			says := genuine
			says.Query = []byte(query)
			wanted := ""
			if queries != nil {
				wanted = string(queries[0])
			}
			_, err := k.Check(token, says, now)
			if query == wanted && err != nil || query != wanted && !errors.Is(err, ErrForeignVars) {
				t.Errorf("%s, called with %q: %v", name, query, err)
			}
		}
	}
}

func TestLength(t *testing.T) {
	t.Parallel()
	k := ring(t, strings.Repeat("k", maxKeyID)+":secret-0123456789")
	long := claims
	long.Object, long.Expires = strings.Repeat("x", 1023), time.Unix(1<<39, 0)
	long.Vars, long.Rest, long.Queries = make([]byte, 5000), make([]byte, 5000), [][]byte{make([]byte, 5000)}
	for room := 17; ; room++ {
		long.Shape = make([]byte, room)
		token, err := k.Mint(long)
		if room == 17 && err != nil {
			t.Errorf("no room for a shape of %d bytes: %v", room, err)
		}
		if errors.Is(err, ErrTooLong) {
			break
		}
		if len(token) > MaxLen {
			t.Fatalf("token has %d bytes, limit %d", len(token), MaxLen)
		}
	}
	short := ring(t, "2026-11:secret-0123456789")
	long.Shape, long.Queries = nil, [][]byte{{1}, {2}, {3}}
	if _, err := short.Mint(long); err != nil {
		t.Errorf("no room for three queries: %v", err)
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
		"negative size": {func(c *Claims) { c.Size = new(int64(-1)) }, "size -1 is out of range"},
		"huge size":     {func(c *Claims) { c.Size = new(int64(1 << 48)) }, "size 281474976710656 is out of range"},
		"six queries":   {func(c *Claims) { c.Queries = make([][]byte, 6) }, "6 queries are too many"},
		"far expiry":    {func(c *Claims) { c.Expires = time.Unix(1<<40, 0) }, "expiry 36812-02-20T00:36:16Z is out of range"},
	} {
		c := claims
		tt.change(&c)
		if token, err := k.Mint(c); err == nil || token != "" || err.Error() != "mint upload token: "+tt.want {
			t.Errorf("%s: minted %q, %v", name, token, err)
		}
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
	f.Add(token1)
	f.Fuzz(func(t *testing.T, s string) {
		_, err := k.Check(s, genuine, now)
		if (err == nil) != (s == token || s == token1) {
			t.Errorf("Check(%q) = %v", s, err)
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	k := ring(b, "k1:first-secret-0123456789")
	c := claims
	c.Queries = nil
	token := mint(b, k, c)
	says := genuine
	says.Query = nil
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.Check(token, says, now); err != nil {
			b.Fatal(err)
		}
	}
}
