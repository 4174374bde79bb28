package doctor

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"regexp"
	"slices"
	"strings"

	"upcall/internal/verify"
)

func hexOf(sum [md5.Size]byte) []byte { return []byte(hex.EncodeToString(sum[:])) }

// maxSignatures is the number of spellings of a signature that are opened.
const maxSignatures = 200

var (
	blanks    = regexp.MustCompile(`[\s]+`)
	anyScheme = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]*[ :]\s*`)
)

// signatureSteps undo what proxies, frameworks and copying do to the Authorization header.
var signatureSteps = []step{
	once(SignatureBlanks, func(a string) string { return blanks.ReplaceAllString(a, "") }),
	once(SignatureScheme, func(a string) string { return anyScheme.ReplaceAllString(a, "") }),
	{SignaturePadding, func(a string) []string {
		bare := strings.TrimRight(a, "=")
		return []string{bare + strings.Repeat("=", (4-len(bare)%4)%4)}
	}},
	once(SignatureQuoted, func(a string) string { return strings.Trim(a, `"'<>`) }),
	once(SignaturePercent, unescape),
	once(SignaturePlus, func(a string) string { return strings.ReplaceAll(a, " ", "+") }),
	once(SignatureAlphabet, strings.NewReplacer("-", "+", "_", "/").Replace),
	{SignatureHex, func(a string) []string {
		raw, err := hex.DecodeString(a)
		if err != nil {
			return nil
		}
		return []string{base64.StdEncoding.EncodeToString(raw)}
	}},
	onBytes(SignatureLastBits, func(s []byte) [][]byte { return [][]byte{s} }),
	onBytes(SignatureExtraBytes, func(s []byte) [][]byte {
		var cut [][]byte
		for _, size := range []int{512 / 8, 1024 / 8, 2048 / 8, 4096 / 8} {
			if len(s) > size {
				cut = append(cut, s[:size], s[len(s)-size:])
			}
		}
		return cut
	}),
	onBytes(SignatureReversed, func(s []byte) [][]byte {
		s = slices.Clone(s)
		slices.Reverse(s)
		return [][]byte{s}
	}),
}

// onBytes is a step on what the Base64 stands for.
func onBytes(kind Kind, undo func([]byte) [][]byte) step {
	return step{kind, func(a string) []string {
		raw, err := base64.StdEncoding.DecodeString(a)
		if err != nil {
			return nil
		}
		var out []string
		for _, s := range undo(raw) {
			out = append(out, base64.StdEncoding.EncodeToString(s))
		}
		return out
	}}
}

// signatureHeaders are where gateways put an Authorization header that they took away.
var signatureHeaders = []string{
	"X-Forwarded-Authorization", "X-Original-Authorization", "X-Authorization", "Proxy-Authorization",
	"X-Amzn-Remapped-Authorization", "Redirect-Http-Authorization", "Http-Authorization",
}

// An openedSignature is what a signature turned out to hold, and what had to be undone
// for that.
type openedSignature struct {
	digest        [md5.Size]byte
	authorization string
	keyURL        string // value of x-oss-pub-key-url that stands for the key
	kinds         []Kind // of the Authorization header
	header        string // the header the signature was in, if not Authorization
}

// openSignature looks for the spelling of the signature and the key with which it opens
// to a digest.
func (d *Doctor) openSignature(ctx context.Context, v *verify.Verifier, c *Capture, keyURLs []string) (openedSignature, bool) {
	for _, header := range append([]string{"Authorization"}, signatureHeaders...) {
		// Longer than any signature is with whatever was put around it.
		const maxAuthorization = 8 << 10
		value := c.Get(header)
		if value == "" || len(value) > maxAuthorization {
			continue
		}
		for _, spelled := range spread(value, signatureSteps, maxSignatures) {
			for _, keyURL := range keyURLs {
				digest, err := v.Digest(ctx, keyURL, spelled.text)
				if err == nil {
					sig := openedSignature{digest, spelled.text, keyURL, spelled.kinds, ""}
					if header != "Authorization" {
						sig.header = header
					}
					return sig, true
				}
			}
		}
	}
	return openedSignature{}, false
}
