package verify

import (
	"bytes"
	"crypto"
	"crypto/md5"
	"crypto/rsa"
	"crypto/sha1"
	"errors"
	"math/big"
	"slices"
	"testing"
)

// bothWays returns a key that crypto/rsa accepts, to be checked both ways, so that our own
// check is compared with the library.
func bothWays(t testing.TB) (private *rsa.PrivateKey, own, std *publicKey) {
	t.Helper()
	private = privateKey(t, "testkey_1024.pem")
	std, err := newPublicKey(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if std.std == nil {
		t.Fatal("a key of 1024 bits is not checked by crypto/rsa")
	}
	without := *std
	without.std = nil
	return private, &without, std
}

func TestCheckAgreesWithCryptoRSA(t *testing.T) {
	t.Parallel()
	private, own, std := bothWays(t)
	digest := md5.Sum([]byte("/p\nbody"))
	genuine, err := rsa.SignPKCS1v15(nil, private, crypto.MD5, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	block, err := own.open(genuine)
	if err != nil {
		t.Fatal(err)
	}
	changed := func(at int, to byte) []byte {
		b := append([]byte(nil), block...)
		b[at] = to
		return encodeBlock(private, b)
	}
	sha := make([]byte, 32)
	other, err := rsa.SignPKCS1v15(nil, private, crypto.SHA256, sha)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		signature []byte
		want      string
	}{
		"empty":          {nil, "signature_length"},
		"short":          {genuine[1:], "signature_length"},
		"leading zero":   {append([]byte{0}, genuine...), "signature_length"},
		"modulus":        {private.N.Bytes(), "signature_range"},
		"above modulus":  {new(big.Int).Add(private.N, big.NewInt(1)).Bytes(), "signature_range"},
		"zero":           {make([]byte, own.size), "signature_padding"},
		"block type":     {changed(1, 2), "signature_padding"},
		"padding byte":   {changed(20, 0), "signature_padding"},
		"end of padding": {changed(own.size-35, 1), "signature_padding"},
		"other hash":     {other, "signature_padding"},
		"first of hash":  {changed(own.size-16, block[own.size-16]^1), "digest_mismatch"},
		"last of hash":   {changed(own.size-1, block[own.size-1]^1), "digest_mismatch"},
		"genuine":        {genuine, "ok"},
	} {
		if got := reason(t, own.check(&own.md5, digest[:], test.signature)); got != test.want {
			t.Errorf("%s: own check says %s, want %s", name, got, test.want)
		}
		if got := reason(t, std.check(&std.md5, digest[:], test.signature)); got != test.want {
			t.Errorf("%s: check by crypto/rsa says %s, want %s", name, got, test.want)
		}
	}
}

// TestKeyRefusedByCryptoRSA uses a key that crypto/rsa does not accept, which says nothing
// about the signature.
func TestKeyRefusedByCryptoRSA(t *testing.T) {
	t.Parallel()
	private, _, std := bothWays(t)
	std.std = &rsa.PublicKey{N: private.N, E: 2}
	err := std.check(&std.md5, make([]byte, md5.Size), make([]byte, std.size))
	if !errors.Is(err, ErrKeyParameters) {
		t.Errorf("got %v, want ErrKeyParameters", err)
	}
}

// FuzzCheck compares our own check with crypto/rsa on signatures of a good block with some
// bytes changed, and on arbitrary ones.
func FuzzCheck(f *testing.F) {
	private, own, std := bothWays(f)
	plain := make([]byte, own.size)
	for _, v := range loadVectors(f) {
		f.Add([]byte(v.Body), plain, []byte(v.Authorization))
	}
	for at := range own.size {
		mask := append([]byte(nil), plain...)
		mask[at] = 0xff
		f.Add([]byte("body"), mask, mask)
	}
	f.Add([]byte("body"), plain, private.N.Bytes())
	f.Fuzz(func(t *testing.T, content, mask, arbitrary []byte) {
		md5Digest, sha1Digest := md5.Sum(content), sha1.Sum(content)
		checkMasked(t, private, own, std, &own.md5, md5Digest[:], mask, arbitrary)
		checkMasked(t, private, own, std, &own.sha1, sha1Digest[:], mask, arbitrary)
	})
}

func checkMasked(t *testing.T, private *rsa.PrivateKey, own, std *publicKey, b *block, digest, mask, arbitrary []byte) {
	content := slices.Concat(b.head, digest)
	same := true
	for i := range min(len(mask), len(content)) {
		content[i] ^= mask[i]
		same = same && mask[i] == 0
	}
	held := new(big.Int).SetBytes(content).Cmp(private.N) < 0
	for _, signature := range [][]byte{encodeBlock(private, content), arbitrary} {
		got := reason(t, own.check(b, digest, signature))
		byStd := reason(t, std.check(b, digest, signature))
		if got != byStd {
			t.Errorf("own check says %s, with crypto/rsa it is %s", got, byStd)
		}
		library := rsa.VerifyPKCS1v15(&private.PublicKey, b.hash, digest, signature)
		if (got == "ok") != (library == nil) {
			t.Errorf("own check says %s, crypto/rsa %v", got, library)
		}
	}
	if held && (own.check(b, digest, encodeBlock(private, content)) == nil) != same {
		t.Errorf("block changed by %x: accepted %t", mask, !same)
	}
}

// FuzzOpen compares the public operation with math/big, for keys of any odd modulus and exponent.
func FuzzOpen(f *testing.F) {
	for _, name := range []string{"testkey_512.pem", "testkey_1024.pem"} {
		n := privateKey(f, name).N
		f.Add(n.Bytes(), uint32(65537), bytes.Repeat([]byte{0x5a}, len(n.Bytes())))
		f.Add(n.Bytes(), uint32(3), n.Bytes())
		f.Add(n.Bytes(), uint32(1<<31-1), new(big.Int).Sub(n, big.NewInt(1)).Bytes())
		f.Add(n.Bytes(), uint32(5), make([]byte, len(n.Bytes())))
	}
	f.Fuzz(func(t *testing.T, modulus []byte, exponent uint32, signature []byte) {
		n := new(big.Int).SetBytes(modulus)
		k, err := newPublicKey(&rsa.PublicKey{N: n, E: int(exponent)})
		if err != nil || len(signature) != k.size {
			return
		}
		s := new(big.Int).SetBytes(signature)
		got, err := k.open(signature)
		if inRange := s.Cmp(n) < 0; inRange != (err == nil) || !inRange && !errors.Is(err, ErrSignatureRange) {
			t.Fatalf("error %v of a signature that is in range: %t", err, inRange)
		} else if !inRange {
			return
		}
		want := s.Exp(s, big.NewInt(int64(exponent)), n).FillBytes(make([]byte, k.size))
		if !bytes.Equal(got, want) {
			t.Errorf("got %x, want %x", got, want)
		}
	})
}
