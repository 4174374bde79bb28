package uploadtoken

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// token1 was minted by the version before, for claims' upload, expiry, bucket and object.
const token1 = "k1.AQIDBAUGBwgJCgsMDQ4PEABrAudQt7Aam4yz7zX2vmlSCU39HkdeoI0k-1DYbaH__3SD_jSU1Dudz_hwSo7mgTPpGgzG"

// TestVersion1: a token issued before counts until it expires, for all that it binds.
func TestVersion1(t *testing.T) {
	t.Parallel()
	k := ring(t, "k2:second-secret-0123456789,k1:first-secret-0123456789")
	flip := func(at int) string { return token1[:at] + "A" + token1[at+1:] }
	for _, tt := range []struct {
		name, token, bucket, object string
		at                          time.Time
		want                        error
	}{
		{"genuine", token1, claims.Bucket, claims.Object, now, nil},
		{"names neither", token1, "", "", now, nil},
		{"expired", token1, claims.Bucket, claims.Object, claims.Expires, ErrExpired},
		{"foreign bucket", token1, "prod", claims.Object, now, ErrForeignBucket},
		{"foreign key", token1, "", "x", now, ErrForeignKey},
		{"other upload id", flip(4), claims.Bucket, claims.Object, now, ErrForged},
		{"other token tag", flip(40), claims.Bucket, claims.Object, now, ErrForged},
		{"other bucket tag", flip(60), claims.Bucket, claims.Object, now, ErrForeignBucket},
		{"other key tag", flip(85), claims.Bucket, claims.Object, now, ErrForeignKey},
		{"as version 2", "k1.2." + token1[3:], claims.Bucket, claims.Object, now, ErrForged},
		{"of another key", "k2." + token1[3:], claims.Bucket, claims.Object, now, ErrForged},
		{"line break", token1[:40] + "\n" + token1[41:], claims.Bucket, claims.Object, now, ErrForged},
		{"cut short", token1[:len(token1)-1], claims.Bucket, claims.Object, now, ErrForged},
	} {
		got, err := k.Check(tt.token, Callback{Bucket: tt.bucket, Object: tt.object, Fields: fields{"admin=true", "x"}}, tt.at)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
		if err == nil && (got.UploadID != claims.UploadID || !got.Expires.Equal(claims.Expires)) {
			t.Errorf("%s: claims changed: %v", tt.name, got)
		}
		// It says nothing of the variables, so a notification's are not proven by it.
		notified := Callback{Bucket: tt.bucket, Object: tt.object, Fields: fields{"admin=true", "x"}, Notified: true}
		got, err = k.Check(tt.token, notified, tt.at)
		if !errors.Is(err, tt.want) || err == nil && !got.Unproven {
			t.Errorf("%s in a notification: got %v, %v, want %v", tt.name, got, err, tt.want)
		}
	}
}

// TestVersionsApart: the holder of a token of version 2 cannot make one of version 1, which
// binds less, of any part of it.
func TestVersionsApart(t *testing.T) {
	t.Parallel()
	k := ring(t, "k1:first-secret-0123456789")
	bare := Callback{Bucket: claims.Bucket, Object: claims.Object}
	for _, c := range []Claims{claims, {UploadID: claims.UploadID, Expires: claims.Expires, Bucket: claims.Bucket, Object: claims.Object}} {
		token := mint(t, k, c)
		blob := decode(t, token)
		head := blob[:idLen+expiryLen]
		for i := 0; i+blobLen1 <= len(blob); i++ {
			if _, err := k.Check("k1."+encoding.EncodeToString(blob[i:i+blobLen1]), bare, now); !errors.Is(err, ErrForged) {
				t.Errorf("bytes %d to %d pass as version 1: %v", i, i+blobLen1, err)
			}
		}
		for i := len(head); i+3*tagLen1 <= len(blob); i++ {
			part := slices.Concat(head, blob[i:i+3*tagLen1])
			if _, err := k.Check("k1."+encoding.EncodeToString(part), Callback{}, now); !errors.Is(err, ErrForged) {
				t.Errorf("the head and what follows byte %d pass as version 1: %v", i, err)
			}
		}
		_, encoded, _ := strings.Cut(token, ".2.")
		n := encoding.EncodedLen(blobLen1)
		for i := 0; i+n <= len(encoded); i++ {
			if _, err := k.Check("k1."+encoded[i:i+n], Callback{}, now); !errors.Is(err, ErrForged) {
				t.Errorf("letters %d to %d pass as version 1: %v", i, i+n, err)
			}
		}
	}
	// Even where both cover the same, their HMACs differ.
	w1, w2 := k.keys[0].work(domain1, nil), k.keys[0].work(domain2, nil)
	if bytes.Equal(w1.start("token").end(nil, tagLen), w2.start("token").end(nil, tagLen)) {
		t.Error("both versions have the same HMAC")
	}
}
