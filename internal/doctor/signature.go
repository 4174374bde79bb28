package doctor

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"regexp"
	"slices"
	"strings"
)

func hexOf(sum [md5.Size]byte) string { return hex.EncodeToString(sum[:]) }

// maxSignatures is the number of spellings of a signature that are opened.
const maxSignatures = 200

var (
	blanks    = regexp.MustCompile(`\s+`)
	anyScheme = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]*[ :]\s*`)
)

// signatureSteps undo what proxies, frameworks and copying do to the Authorization header.
var signatureSteps = []step{
	once(SignatureBlanks, func(a string) string { return blanks.ReplaceAllString(a, "") }),
	once(SignatureScheme, func(a string) string { return anyScheme.ReplaceAllString(a, "") }),
	once(SignaturePadding, func(a string) string {
		bare := strings.TrimRight(a, "=")
		return bare + strings.Repeat("=", (4-len(bare)%4)%4)
	}),
	once(SignatureQuoted, func(a string) string { return strings.Trim(a, `"'<>`) }),
	once(SignaturePercent, unescape),
	once(SignaturePlus, func(a string) string { return strings.ReplaceAll(a, " ", "+") }),
	once(SignatureAlphabet, strings.NewReplacer("-", "+", "_", "/").Replace),
	onBytes(SignatureHex, hex.DecodeString, unchanged),
	onBytes(SignatureLastBits, base64.StdEncoding.DecodeString, unchanged),
	onBytes(SignatureExtraBytes, base64.StdEncoding.DecodeString, func(s []byte) [][]byte {
		var cut [][]byte
		for _, size := range []int{512 / 8, 1024 / 8, 2048 / 8, 4096 / 8} {
			if len(s) > size {
				cut = append(cut, s[:size], s[len(s)-size:])
			}
		}
		return cut
	}),
	onBytes(SignatureReversed, base64.StdEncoding.DecodeString, func(s []byte) [][]byte {
		slices.Reverse(s)
		return [][]byte{s}
	}),
}

func unchanged(signature []byte) [][]byte { return [][]byte{signature} }

// onBytes is a step on the decoded signature, which it encodes again as Base64.
func onBytes(kind Kind, decode func(string) ([]byte, error), undo func([]byte) [][]byte) step {
	return step{kind, func(a string) []string {
		raw, err := decode(a)
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

// signatureHeaders are where a signature may be: in its own header, or where gateways put
// an Authorization header that they remove.
var signatureHeaders = []string{
	"Authorization", "X-Forwarded-Authorization", "X-Original-Authorization", "X-Authorization", "Proxy-Authorization",
	"X-Amzn-Remapped-Authorization", "Redirect-Http-Authorization", "Http-Authorization",
}

// An openedSignature is what a signature contains, and what had to be undone to open it.
type openedSignature struct {
	digest        [md5.Size]byte
	authorization string
	keyURL        string // value of x-oss-pub-key-url that stands for the key
	kinds         []Kind // of the Authorization header
	header        string // the header with the signature
}

// openSignature looks for the spelling of the signature and the key that open it to a
// digest.
func (e *examination) openSignature(ctx context.Context) (openedSignature, bool) {
	for _, header := range signatureHeaders {
		const maxAuthorization = 8 << 10 // longer than any signature, whatever was put around it
		value := e.capture.Get(header)
		if value == "" || len(value) > maxAuthorization {
			continue
		}
		for _, spelled := range spread(value, signatureSteps, maxSignatures) {
			for _, keyURL := range e.keyURLs {
				if digest, err := e.verifier.Digest(ctx, keyURL, spelled.text); err == nil {
					return openedSignature{digest, spelled.text, keyURL, spelled.kinds, header}, true
				}
			}
		}
	}
	return openedSignature{}, false
}
