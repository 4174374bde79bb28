package verify

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/base64"
	"fmt"
	"time"
)

// NewWithKey returns a Verifier that trusts, besides OSS's own key, the one in a PEM
// file, under the URL that x-oss-pub-key-url announces it by. It fetches nothing, and is
// for tools that look at captured requests where the key server is not. The error
// matches ErrKeyFormat or ErrKeyParameters.
func NewWithKey(url string, file []byte) (*Verifier, error) {
	key, err := parsePublicKey(file)
	if err != nil {
		return nil, err
	}
	v, err := New(Config{})
	if err != nil {
		return nil, err
	}
	if url == "" {
		return nil, fmt.Errorf("name key: %w", ErrKeyURL)
	}
	v.trusted[base64.StdEncoding.EncodeToString([]byte(url))] = &trustedKey{
		fetch: func() (*publicKey, error) { return key, nil },
		now:   time.Now,
	}
	return v, nil
}

// Digest returns the MD5 digest that a signature holds, under the key that a value of
// x-oss-pub-key-url stands for. It explains refusals: what was signed is whatever has
// this digest. It accepts nothing; that is for [Verifier.Verify] alone.
//
// The error matches one sentinel: those of the signature (but ErrDigestMismatch), of the
// key URL, and of fetching the key.
func (v *Verifier) Digest(ctx context.Context, pubKeyURL, authorization string) ([md5.Size]byte, error) {
	signature, err := decodeSignature(authorization)
	if err != nil {
		return [md5.Size]byte{}, err
	}
	key, err := v.keyOf(ctx, pubKeyURL)
	if err != nil {
		return [md5.Size]byte{}, err
	}
	return key.digest(signature)
}

// digest opens a signature and takes the digest out of its block. The block's length
// and the whole of its head are compared, so that no other place can hold the digest.
func (k *publicKey) digest(signature []byte) ([md5.Size]byte, error) {
	if len(signature) != k.size {
		return [md5.Size]byte{}, ErrSignatureLength.with("%d bytes, not %d", len(signature), k.size)
	}
	block, err := k.open(signature)
	if err != nil {
		return [md5.Size]byte{}, err
	}
	digest, ok := bytes.CutPrefix(block, k.head)
	if !ok {
		return [md5.Size]byte{}, ErrPadding
	}
	return [md5.Size]byte(digest), nil
}
