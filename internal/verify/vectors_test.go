package verify

import (
	"crypto/md5"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"upcall/internal/testing/vectors"
)

func request(v vectors.Vector) Request {
	return Request{
		Target:           v.Target,
		Body:             []byte(v.Body),
		Authorization:    v.Authorization,
		PubKeyURL:        v.PubKeyURL,
		SignatureVersion: v.SignatureVersion,
	}
}

// genuine are the callbacks that OSS itself signed, with the MD5 of what it signed, so that
// nobody can change a vector to make a test pass.
var genuine = map[string]string{
	"docs-2015-query":       "5b74fc97cc385b45c6c8b7782d5a2140",
	"docs-2018-capture":     "5897305f560d80dd5cdcd3b116d584fa",
	"deeplink-2019-capture": "166dddd26f191ddf6a9a5993c9b5e13f",
	"py-issue-272":          "f01f35552b2f10ac3e131e791d1a1b76",
}

// failures are all the sentinels.
var failures = []*Failure{
	ErrSignatureVersion, ErrTarget, ErrNoSignature, ErrSignatureEncoding, ErrSignatureLength,
	ErrSignatureRange, ErrPadding, ErrDigestMismatch,
	ErrKeyURLLength, ErrKeyURLEncoding, ErrKeyURL,
	ErrSignedHeader, ErrContentMD5, ErrDate, ErrDateExpired, ErrCertURL,
	ErrKeyUnreachable, ErrKeyRedirect, ErrKeyStatus, ErrKeySize, ErrKeyFormat, ErrKeyParameters, ErrCanceled,
}

// loadVectors returns the vectors, and fails if a genuine callback is not among them.
func loadVectors(t testing.TB) map[string]vectors.Vector {
	t.Helper()
	all := vectors.Load(t)
	for id, digest := range genuine {
		v, ok := all[id]
		if !ok || v.Expect != "ok" {
			t.Fatalf("genuine callback %s is not among the %d vectors as ok", id, len(all))
		}
		signed, err := StringToSign(v.Target, []byte(v.Body))
		if err != nil {
			t.Fatal(err)
		}
		if sum := md5.Sum(signed); hex.EncodeToString(sum[:]) != digest {
			t.Fatalf("genuine callback %s was changed", id)
		}
	}
	return all
}

// privateKey reads a private key of testdata.
func privateKey(t testing.TB, name string) *rsa.PrivateKey {
	t.Helper()
	block, _ := pem.Decode(vectors.File(t, name))
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key.(*rsa.PrivateKey)
}

// encodeBlock makes a signature that contains block, valid or not.
func encodeBlock(key *rsa.PrivateKey, block []byte) []byte {
	m := new(big.Int).SetBytes(block)
	return m.Exp(m, key.D, key.N).FillBytes(make([]byte, key.Size()))
}

// reason returns "ok", or the reason of the one sentinel that err matches.
func reason(t testing.TB, err error) string {
	t.Helper()
	if err == nil {
		return "ok"
	}
	var matched []*Failure
	for _, f := range failures {
		if errors.Is(err, f) {
			matched = append(matched, f)
		}
	}
	found, ok := errors.AsType[*Failure](err)
	if len(matched) != 1 || !ok || found != matched[0] {
		t.Fatalf("error %q matches the sentinels %v, and as a Failure is %v", err, matched, found)
	}
	if strings.ContainsAny(err.Error(), "\r\n") {
		t.Fatalf("error is more than one line: %q", err)
	}
	return found.Reason()
}

func TestVectors(t *testing.T) {
	t.Parallel()
	for id, v := range loadVectors(t) {
		t.Run(id, func(t *testing.T) {
			t.Parallel()
			var cfg Config
			r := request(v)
			requests := new(atomic.Int64)
			if v.KeyServer != nil {
				var url string
				url, requests = v.KeyServer.Start(t)
				r.PubKeyURL = base64.StdEncoding.EncodeToString([]byte(url))
				if !v.KeyServer.Untrusted {
					cfg.TrustKeyURLs = []string{url}
				}
			}
			verifier, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second key comes from the cache
				if got := reason(t, verifier.Verify(t.Context(), r)); got != v.Expect {
					t.Errorf("%s\ngot %s, want %s", v.Why, got, v.Expect)
				}
			}
			switch n := requests.Load(); {
			case n > 1:
				t.Errorf("the key server was asked %d times, not once", n)
			case n > 0 && cfg.TrustKeyURLs == nil:
				t.Error("a key server that is not trusted was asked")
			}
		})
	}
}

// TestVectorsAreConsistent checks the fields that are for readers only.
func TestVectorsAreConsistent(t *testing.T) {
	t.Parallel()
	key := privateKey(t, "testkey_512.pem")
	for id, v := range loadVectors(t) {
		if v.KeyURL != "" && base64.StdEncoding.EncodeToString([]byte(v.KeyURL)) != v.PubKeyURL {
			t.Errorf("%s: pub_key_url does not encode key_url", id)
		}
		if v.Block == "" {
			continue
		}
		block, err := hex.DecodeString(v.Block)
		if err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		signature := encodeBlock(key, block)
		if v.Expect == ErrSignatureRange.Reason() {
			s := new(big.Int).SetBytes(signature)
			s.Add(s, key.N).FillBytes(signature)
		}
		if base64.StdEncoding.EncodeToString(signature) != v.Authorization {
			t.Errorf("%s: authorization does not contain block", id)
		}
	}
}

func TestEveryFailureHasItsOwnReasonAndVector(t *testing.T) {
	t.Parallel()
	var source []byte
	for _, file := range []string{"errors.go", "push.go"} {
		more, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		source = append(source, more...)
	}
	if n := len(regexp.MustCompile(`(?m)^\tErr\w+ += &Failure`).FindAll(source, -1)); n != len(failures) {
		t.Errorf("the package has %d sentinels, the tests have %d", n, len(failures))
	}
	covered := map[string]bool{
		ErrCanceled.Reason(): true, // TestCallersShareOneFetch
	}
	for _, f := range []*Failure{ErrSignedHeader, ErrContentMD5, ErrDate, ErrDateExpired, ErrCertURL} {
		covered[f.Reason()] = true // TestVerifyPush
	}
	for _, v := range loadVectors(t) {
		covered[v.Expect] = true
	}
	seen := map[string]bool{}
	for _, f := range failures {
		if !regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`).MatchString(f.Reason()) || seen[f.Reason()] {
			t.Errorf("reason %q is not in snake_case or appears twice", f.Reason())
		}
		seen[f.Reason()] = true
		if f.Kind() < NotSigned || f.Kind() > CannotCheck {
			t.Errorf("%s: kind %d", f.Reason(), f.Kind())
		}
		if !covered[f.Reason()] {
			t.Errorf("no vector expects %s", f.Reason())
		}
	}
}
