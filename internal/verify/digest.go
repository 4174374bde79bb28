package verify

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"fmt"
	"time"
)

// NewWithKey returns a Verifier that trusts, besides OSS's own key, the one in a PEM
// file, under the URL with which x-oss-pub-key-url announces it. It fetches nothing: it is
// for tools that examine captured requests without the key server. The error matches
// ErrKeyFormat or ErrKeyParameters.
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

// Digest returns the MD5 digest that a signature contains, under the key that a value of
// x-oss-pub-key-url stands for. It explains refusals: what was signed has this digest. It
// accepts nothing; only [Verifier.Verify] does.
//
// The error matches one sentinel: one of the signature (but not ErrDigestMismatch), of the
// key URL, or of fetching the key.
func (v *Verifier) Digest(ctx context.Context, pubKeyURL, authorization string) ([md5.Size]byte, error) {
	signature, err := decodeSignature(authorization)
	if err != nil {
		return [md5.Size]byte{}, err
	}
	key, err := v.keyOf(ctx, pubKeyURL)
	if err != nil {
		return [md5.Size]byte{}, err
	}
	digest, err := key.digest(&key.md5, signature)
	if err != nil {
		return [md5.Size]byte{}, err
	}
	return [md5.Size]byte(digest), nil
}
