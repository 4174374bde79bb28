package verify

import (
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"sync"
	"testing"

	"upcall/internal/testing/vectors"
)

// FuzzVerify: Verify never panics, gives each failure one sentinel, and accepts a signature
// only in its one spelling and only over the content that it was made for.
func FuzzVerify(f *testing.F) {
	url, _ := new(vectors.KeyServer).Start(f)
	verifier, err := New(Config{TrustKeyURLs: []string{url}})
	if err != nil {
		f.Fatal(err)
	}
	// testKey stands for the key server's URL, which differs from run to run.
	const testKey = "the test key"
	testKeyURL := base64.StdEncoding.EncodeToString([]byte(url))

	type digest = [md5.Size]byte
	signedBy := map[bool]map[digest]string{false: {}, true: {}} // by the test key or not: Authorization
	for _, v := range loadVectors(f) {
		r := request(v)
		if v.KeyServer != nil {
			r.PubKeyURL = testKey
		}
		f.Add(r.Target, r.Body, r.Authorization, r.PubKeyURL, r.SignatureVersion)
		if genuine[v.ID] != "" {
			sum, err := hex.DecodeString(genuine[v.ID])
			if err != nil {
				f.Fatal(err)
			}
			signedBy[false][digest(sum)] = v.Authorization
		}
		if v.Block != "" && v.Expect != ErrPadding.Reason() && v.Expect != ErrSignatureRange.Reason() {
			block, err := hex.DecodeString(v.Block)
			if err != nil {
				f.Fatal(err)
			}
			signedBy[true][digest(block[len(block)-md5.Size:])] = v.Authorization
		}
	}
	f.Fuzz(func(t *testing.T, target string, body []byte, authorization, keyURL, version string) {
		byTestKey := keyURL == testKey
		if byTestKey {
			keyURL = testKeyURL
		}
		r := Request{target, body, authorization, keyURL, version}
		if reason(t, verifier.Verify(t.Context(), r)) != "ok" {
			return
		}
		signed, err := StringToSign(target, body)
		if err != nil {
			t.Fatalf("accepted a target that StringToSign refuses: %v", err)
		}
		if want := signedBy[byTestKey][md5.Sum(signed)]; want == "" || want != authorization {
			t.Errorf("accepted %q under %q, for which it was not made", signed, authorization)
		}
	})
}

func TestVerifyInParallel(t *testing.T) {
	t.Parallel()
	url, requests := new(vectors.KeyServer).Start(t)
	verifier, err := New(Config{TrustKeyURLs: []string{url}})
	if err != nil {
		t.Fatal(err)
	}
	known := loadVectors(t)
	pinned, trusted := request(known["deeplink-2019-capture"]), request(known["test-key"])
	trusted.PubKeyURL = base64.StdEncoding.EncodeToString([]byte(url))
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for _, r := range []Request{trusted, pinned} {
				if err := verifier.Verify(t.Context(), r); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if n := requests.Load(); n != 1 {
		t.Errorf("the key server was asked %d times, not once", n)
	}
}

func BenchmarkVerify(b *testing.B) {
	verifier, err := New(Config{})
	if err != nil {
		b.Fatal(err)
	}
	r := request(loadVectors(b)["deeplink-2019-capture"])
	b.ReportAllocs()
	for b.Loop() {
		if err := verifier.Verify(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
}
