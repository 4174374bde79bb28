package verify

import "fmt"

// A Kind says what a [Failure] means for the answer to the request.
type Kind int

const (
	// NotSigned: OSS did not sign this request. 403 bad_signature.
	NotSigned Kind = iota + 1
	// UntrustedKey: the request names a key that is not trusted, so its signature proves
	// nothing. 403 untrusted_key.
	UntrustedKey
	// CannotCheck: the request may be genuine, but the key to check it with is not
	// available. 503 unavailable, so that OSS tries its next URL.
	CannotCheck
)

// A Failure is one reason why [Verifier.Verify] does not accept a request. Each is a
// sentinel for errors.Is; errors.AsType[*Failure] finds the one that an error matches.
type Failure struct {
	kind   Kind
	reason string
	text   string
}

func (f *Failure) Error() string { return f.text }

// Kind tells refusals from checks that are not possible.
func (f *Failure) Kind() Kind { return f.kind }

// Reason is a stable label in snake_case for metrics and logs, e.g. "digest_mismatch".
func (f *Failure) Reason() string { return f.reason }

// The request was not signed by OSS.
var (
	// ErrSignatureVersion means that x-oss-signature-version is present and not "1.0". The
	// canonical form of 2.0 is not public, so such a signature cannot be checked.
	ErrSignatureVersion = &Failure{NotSigned, "signature_version",
		"x-oss-signature-version is not 1.0: leave signatureVersion out of the callback parameter"}
	// ErrTarget means a request target that OSS cannot have signed: neither a path nor
	// an absolute URL, a broken percent escape, or a control byte.
	ErrTarget = &Failure{NotSigned, "target_malformed", "malformed request target"}
	// ErrNoSignature means that there is no Authorization header.
	ErrNoSignature = &Failure{NotSigned, "signature_missing", "no signature: the Authorization header is absent"}
	// ErrSignatureEncoding means that Authorization is not strict standard Base64.
	ErrSignatureEncoding = &Failure{NotSigned, "signature_encoding", "the Authorization header is not Base64"}
	// ErrSignatureLength means a signature that is not as long as the key's modulus.
	ErrSignatureLength = &Failure{NotSigned, "signature_length", "the signature is not as long as the key"}
	// ErrSignatureRange means a signature that, as a number, is not below the modulus.
	ErrSignatureRange = &Failure{NotSigned, "signature_range", "the signature is not below the key's modulus"}
	// ErrPadding means that the signature contains no PKCS #1 v1.5 block with an MD5
	// digest: it was made with another key or another scheme, or was forged.
	ErrPadding = &Failure{NotSigned, "signature_padding", "the signature was not made with this key"}
	// ErrDigestMismatch means a genuine signature of this key, over other content:
	// something between OSS and here changed the path, the query or the body.
	ErrDigestMismatch = &Failure{NotSigned, "digest_mismatch",
		"the signature is of this key but over other content: path, query or body were changed on the way"}
)

// The request names a key that is not trusted.
var (
	// ErrKeyURLLength means an x-oss-pub-key-url of more than 2 KiB.
	ErrKeyURLLength = &Failure{UntrustedKey, "key_url_length", "x-oss-pub-key-url is longer than 2 KiB"}
	// ErrKeyURLEncoding means that x-oss-pub-key-url is not strict standard Base64.
	ErrKeyURLEncoding = &Failure{UntrustedKey, "key_url_encoding", "x-oss-pub-key-url is not Base64"}
	// ErrKeyURL means that x-oss-pub-key-url is neither the official key's nor, letter
	// by letter, one of Config.TrustKeyURLs.
	ErrKeyURL = &Failure{UntrustedKey, "key_url_untrusted", "x-oss-pub-key-url names a key that is not trusted"}
)

// The key of a trusted URL is not available.
var (
	// ErrKeyUnreachable means that the key server did not answer in time, or at all.
	ErrKeyUnreachable = &Failure{CannotCheck, "key_unreachable", "the key server cannot be reached"}
	// ErrKeyRedirect means that it answered with a redirect, which is never followed.
	ErrKeyRedirect = &Failure{CannotCheck, "key_redirect", "the key server redirects: trust the URL of the key itself"}
	// ErrKeyStatus means that it answered with a status other than 200.
	ErrKeyStatus = &Failure{CannotCheck, "key_status", "the key server does not answer 200"}
	// ErrKeySize means that its answer is larger than 16 KiB.
	ErrKeySize = &Failure{CannotCheck, "key_size", "the key server's answer is larger than 16 KiB"}
	// ErrKeyFormat means that its answer is not one PEM block with an RSA public key.
	ErrKeyFormat = &Failure{CannotCheck, "key_format",
		"the key server's answer is not one PEM block PUBLIC KEY with an RSA key"}
	// ErrKeyParameters means an RSA key of a size or an exponent that is not accepted.
	ErrKeyParameters = &Failure{CannotCheck, "key_parameters", "the key server's RSA key is not usable"}
	// ErrCanceled means that the caller's context ended while it waited for the key. The
	// error wraps the context's own.
	ErrCanceled = &Failure{CannotCheck, "canceled", "gave up waiting for the key"}
)

// with adds detail to a failure; the error matches f and nothing else.
func (f *Failure) with(format string, args ...any) error {
	return fmt.Errorf("%w: %s", f, fmt.Sprintf(format, args...))
}
