// Package verify decides whether a request is an OSS upload callback, or one of OSS's event
// notifications that MNS pushes: raw bytes in, nil or one sentinel error out.
//
// OSS signs a callback with RSASSA-PKCS1-v1_5 and MD5 over the path, the query and the
// body (see [StringToSign]) and sends the signature, in Base64, as Authorization. It signs
// nothing else: no method, no other header, no time, no customer. A nil error therefore
// means that OSS sent this content to this path once, for someone; package uploadtoken
// says for whom. [Verifier.VerifyPush] says what MNS signs.
//
// The keys of OSS and MNS are compiled in. They have 512 bits, which crypto/rsa has refused
// since Go 1.24, so this package checks keys below 1024 bits with its own public operation. A
// GODEBUG setting that restores the old behaviour would weaken TLS and everything else in
// the process, and has no place in this module. Other keys come only from the URLs that
// the operator lists; what x-oss-pub-key-url says is compared, and never fetched.
package verify

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Longer values are refused before any work is done on them, because strangers choose them.
var (
	maxSignature = strictBase64.EncodedLen(maxKeyBits / 8)
	maxKeyURL    = strictBase64.EncodedLen(2 << 10)
)

// strictBase64 accepts only one spelling of the last character.
var strictBase64 = base64.StdEncoding.Strict()

// Config configures a [Verifier]. The zero value trusts OSS alone.
type Config struct {
	// TrustKeyURLs are further public keys to trust, as the exact URLs that x-oss-pub-key-url
	// or x-mns-signing-cert-url announces, http or https; each serves one PEM block PUBLIC KEY
	// with an RSA key of 512 to 8192 bits. Anyone who can change what such a URL serves
	// can sign callbacks, so use https for all but local hosts. Default: none.
	TrustKeyURLs []string
	// Now is the clock by which fetched keys expire. Default: time.Now.
	Now func() time.Time
}

// A Verifier checks callbacks. It may be used by many goroutines at once.
type Verifier struct {
	pinned  *publicKey             // of callbacks
	push    *publicKey             // of pushes
	trusted map[string]*trustedKey // by the value of x-oss-pub-key-url
}

// New returns a Verifier. The error lists all mistakes of the configuration. It fetches
// nothing before a request names a trusted key.
func New(cfg Config) (*Verifier, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	pinned, err := parsePublicKey(pinnedPEM)
	if err != nil {
		return nil, fmt.Errorf("read pinned key: %w", err)
	}
	push, err := parsePublicKey(pushPEM)
	if err != nil {
		return nil, fmt.Errorf("read pinned key of MNS: %w", err)
	}
	trusted, err := trust(cfg.TrustKeyURLs, cfg.Now)
	if err != nil {
		return nil, err
	}
	return &Verifier{pinned: pinned, push: push, trusted: trusted}, nil
}

// A Request is what a signature covers, byte by byte as received, and the headers about
// the signature, each "" if absent.
type Request struct {
	Target           string // from the request line, e.g. "/oss/callback?id=1"
	Body             []byte
	Authorization    string
	PubKeyURL        string // x-oss-pub-key-url
	SignatureVersion string // x-oss-signature-version
}

// Verify returns nil if r was signed with a trusted key, and otherwise an error that
// matches exactly one of this package's sentinels (see [Failure]). It fetches a trusted
// key if it has none or an expired one, and waits for it until ctx ends.
func (v *Verifier) Verify(ctx context.Context, r Request) error {
	// The header is unsigned, so this stops no forger: it tells the operator what to fix,
	// because a signature of another version only looks wrong.
	if r.SignatureVersion != "" && r.SignatureVersion != "1.0" {
		return ErrSignatureVersion
	}
	signature, err := decodeSignature(r.Authorization)
	if err != nil {
		return err
	}
	signed, err := StringToSign(r.Target, r.Body)
	if err != nil {
		return err
	}
	// Last, so that a malformed request causes no fetch.
	key, err := v.keyOf(ctx, r.PubKeyURL)
	if err != nil {
		return err
	}
	digest := md5.Sum(signed)
	return key.check(&key.md5, digest[:], signature)
}

func decodeSignature(authorization string) ([]byte, error) {
	switch {
	case authorization == "":
		return nil, ErrNoSignature
	case len(authorization) > maxSignature:
		return nil, ErrSignatureLength
	}
	signature, ok := decodeBase64(authorization)
	if !ok {
		return nil, ErrSignatureEncoding
	}
	return signature, nil
}

// keyOf returns the key that a value of x-oss-pub-key-url stands for. Strict Base64
// stands for one URL only, so the values are compared as received. They are compared
// whole and letter by letter, because everything looser has been a way in: prefixes
// ("…alicdn.com.evil.example"), user names ("…alicdn.com@evil"), ports, and other files
// on the same CDN.
func (v *Verifier) keyOf(ctx context.Context, header string) (*publicKey, error) {
	if slices.Contains(pinnedHeaders[:], header) {
		return v.pinned, nil
	}
	if key, ok := v.trusted[header]; ok {
		return key.get(ctx)
	}
	if len(header) > maxKeyURL {
		return nil, ErrKeyURLLength
	}
	url, ok := decodeBase64(header)
	if !ok {
		return nil, ErrKeyURLEncoding
	}
	return nil, ErrKeyURL.with("%.200q", url)
}

// decodeBase64 decodes strict standard Base64. The library skips line breaks, even when
// strict.
func decodeBase64(s string) ([]byte, bool) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, false
	}
	decoded, err := strictBase64.DecodeString(s)
	return decoded, err == nil
}
