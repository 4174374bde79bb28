package verify

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/subtle"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"

	"filippo.io/bigmod"
)

const (
	minKeyBits = 512
	maxKeyBits = 8192
	// stdKeyBits is the smallest key that crypto/rsa accepts (since Go 1.24).
	stdKeyBits = 1024
)

// These precede the digest in a PKCS #1 v1.5 signature block: the DER of a DigestInfo that
// names the hash. Source: RFC 8017, section 9.2, note 1.
var (
	digestInfoMD5 = []byte{
		0x30, 0x20, 0x30, 0x0c, 0x06, 0x08, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02, 0x05, 0x05, 0x00, 0x04, 0x10,
	}
	digestInfoSHA1 = []byte{
		0x30, 0x21, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00, 0x04, 0x14,
	}
)

// A block is what signatures with one hash contain.
type block struct {
	hash crypto.Hash
	head []byte // all up to the digest: 00 01 FF … FF 00 DigestInfo
}

// newBlock returns the block in signatures of a size.
func newBlock(hash crypto.Hash, info []byte, size int) block {
	padding := size - len("\x00\x01\x00") - len(info) - hash.Size()
	return block{hash, append([]byte("\x00\x01"+strings.Repeat("\xff", padding)+"\x00"), info...)}
}

// A publicKey checks signatures. It is read-only and may be shared.
type publicKey struct {
	n    *bigmod.Modulus
	e    uint
	size int            // length in bytes of the modulus, and of each signature
	md5  block          // OSS signs callbacks with it
	sha1 block          // MNS signs pushes with it
	std  *rsa.PublicKey // nil for keys that crypto/rsa refuses
}

// parsePublicKey reads a PEM file with one RSA public key and nothing else. The error
// matches ErrKeyFormat or ErrKeyParameters.
func parsePublicKey(file []byte) (*publicKey, error) {
	file = bytes.TrimSpace(file)
	block, rest := pem.Decode(file)
	// pem.Decode looks for the first block it can find in any text.
	if block == nil || !bytes.HasPrefix(file, []byte("-----BEGIN ")) || len(rest) != 0 {
		return nil, ErrKeyFormat
	}
	if block.Type != "PUBLIC KEY" || len(block.Headers) != 0 {
		return nil, ErrKeyFormat.with("block is %.40q", block.Type)
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, ErrKeyFormat.with("%v", err)
	}
	key, ok := parsed.(*rsa.PublicKey)
	if !ok {
		return nil, ErrKeyFormat.with("key is %T", parsed)
	}
	return newPublicKey(key)
}

func newPublicKey(key *rsa.PublicKey) (*publicKey, error) {
	bits := key.N.BitLen()
	switch {
	case bits < minKeyBits || bits > maxKeyBits:
		return nil, ErrKeyParameters.with("%d bits, not %d to %d", bits, minKeyBits, maxKeyBits)
	// An exponent of 1 makes every block its own signature.
	case key.E < 3 || key.E%2 == 0 || key.E > 1<<31-1:
		return nil, ErrKeyParameters.with("exponent %d is not odd and from 3 to 2^31-1", key.E)
	case key.N.Bit(0) == 0:
		return nil, ErrKeyParameters.with("even modulus")
	}
	n, err := bigmod.NewModulus(key.N.Bytes())
	if err != nil {
		return nil, ErrKeyParameters.with("%v", err)
	}
	size := (bits + 7) / 8
	k := &publicKey{
		n:    n,
		e:    uint(key.E),
		size: size,
		md5:  newBlock(crypto.MD5, digestInfoMD5, size),
		sha1: newBlock(crypto.SHA1, digestInfoSHA1, size),
	}
	if bits >= stdKeyBits {
		k.std = key
	}
	return k, nil
}

// check returns nil if signature is this key's RSASSA-PKCS1-v1_5 signature of a digest, in a
// block of the key. The collisions of MD5 and SHA-1 do not help forgers here: they would have
// to find a second content for a digest that was signed.
func (k *publicKey) check(b *block, digest, signature []byte) error {
	if k.std != nil {
		err := rsa.VerifyPKCS1v15(k.std, b.hash, digest, signature)
		if err == nil {
			return nil
		}
		// Any other error is about the key or the algorithm, and says nothing about the
		// signature.
		if !errors.Is(err, rsa.ErrVerification) {
			return ErrKeyParameters.with("%v", err)
		}
	}
	signed, err := k.digest(b, signature)
	if err != nil {
		return err
	}
	// Nothing here is secret, but a constant-time comparison raises no questions. The
	// library's refusal is final.
	if subtle.ConstantTimeCompare(signed, digest) != 1 || k.std != nil {
		return ErrDigestMismatch
	}
	return nil
}

// digest opens a signature and returns the digest in its block. The error matches
// ErrSignatureLength, ErrSignatureRange or ErrPadding.
func (k *publicKey) digest(b *block, signature []byte) ([]byte, error) {
	// One length only, so that no second spelling with leading zeros is accepted.
	if len(signature) != k.size {
		return nil, ErrSignatureLength.with("%d bytes, not %d", len(signature), k.size)
	}
	content, err := k.open(signature)
	if err != nil {
		return nil, err
	}
	// The whole block is compared, its head here and its digest by the caller, and its
	// padding never parsed. A parser that skips the padding and then reads a digest
	// accepts blocks with something after the digest, or too few FFs, which anyone can
	// make for a key with e = 3 by taking a cube root (Bleichenbacher, CRYPTO 2006;
	// CVE-2006-4339).
	digest, ok := bytes.CutPrefix(content, b.head)
	if !ok {
		return nil, ErrPadding
	}
	return digest, nil
}

// open raises the signature to the public exponent, which reveals the block that the
// owner of the key signed. The error matches ErrSignatureRange.
func (k *publicKey) open(signature []byte) ([]byte, error) {
	// s and s + n open to the same block: only the smaller is a signature, because
	// otherwise each genuine one would have a second spelling.
	s, err := bigmod.NewNat().SetBytes(signature, k.n)
	if err != nil {
		return nil, ErrSignatureRange
	}
	return bigmod.NewNat().ExpShortVarTime(s, k.e, k.n).Bytes(k.n), nil
}
