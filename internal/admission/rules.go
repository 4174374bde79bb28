package admission

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"upcall/internal/callbackspec"
	"upcall/internal/uploadtoken"
	"upcall/internal/verify"
)

func (p *Policy) checkPath(r *Request) *Refusal {
	for _, path := range p.cfg.CallbackPaths {
		if matchPath(path, r.Path) || IsPattern(path) && matchPath(path, segmented(r.Target)) {
			return nil
		}
	}
	if len(p.cfg.CallbackPaths) == 0 {
		return nil
	}
	return &Refusal{NotFound, ReasonPath, "there is nothing here", nil}
}

func checkMethod(r *Request) *Refusal {
	if r.Method != "POST" {
		return &Refusal{MethodNotAllowed, ReasonMethod, "callbacks are sent with POST", nil}
	}
	return nil
}

func checkHeaderBytes(r *Request) *Refusal {
	if r.HeaderBytes > MaxHeaders {
		return HeadersTooLarge
	}
	return nil
}

// checkContentEncoding refuses compressed bodies. OSS sends none, and unpacking one would
// be a second reading of the message, and might be a decompression bomb.
func checkContentEncoding(r *Request) *Refusal {
	if r.ContentEncoding != "" && !strings.EqualFold(r.ContentEncoding, "identity") {
		return &Refusal{UnsupportedType, ReasonContentEncoding, "a callback must not have a content encoding", nil}
	}
	return nil
}

// checkLength also checks the bytes read, whatever the length says: a chunked body has none
// and may never end.
func (p *Policy) checkLength(r *Request) *Refusal {
	if r.Length > int64(p.cfg.MaxBody) || len(r.Body) > p.cfg.MaxBody {
		return &Refusal{TooLarge, ReasonBody, fmt.Sprintf("the body is larger than %d KiB", p.cfg.MaxBody>>10), nil}
	}
	return nil
}

// Signed returns what the signature of a request covers. Its target is the raw one, with
// the path that OSS requested if a proxy has changed it.
func (p *Policy) Signed(r *Request) verify.Request {
	target := r.Target
	if p.publicPath != "" {
		path, _, _ := strings.Cut(r.Target, "?")
		target = p.publicPath + r.Target[len(path):]
	}
	return verify.Request{
		Target: target, Body: r.Body,
		Authorization: r.Authorization, PubKeyURL: r.PubKeyURL, SignatureVersion: r.SignatureVersion,
	}
}

// verifyCodes maps the failures of package verify to codes. "Cannot check" never means
// "invalid".
var verifyCodes = map[verify.Kind]Code{
	verify.NotSigned:    BadSignature,
	verify.UntrustedKey: UntrustedKey,
	verify.CannotCheck:  Unavailable,
}

// NotVerified returns why a request is refused that package verify does not accept.
func NotVerified(err error) *Refusal {
	failure, _ := errors.AsType[*verify.Failure](err) // every error of the package is one
	return &Refusal{verifyCodes[failure.Kind()], Reason(failure.Reason()), failure.Error(), err}
}

func notParsed(err error) *Refusal {
	if errors.Is(err, callbackspec.ErrUnsupportedType) {
		return &Refusal{UnsupportedType, ReasonContentType, err.Error(), err}
	}
	return &Refusal{Malformed, ReasonBody, err.Error(), err}
}

// checkBucket returns the bucket of the callback: the one in the signed body, or else the
// one in the header. The header is not signed, but OSS sets it to the bucket of the upload.
// So a body that names another bucket comes from another customer of OSS, who had it sign
// the name of our bucket for our URL.
func (p *Policy) checkBucket(body, header string) (string, *Refusal) {
	bucket := body
	if bucket == "" {
		bucket = header
		if !callbackspec.Storable(header) {
			return "", &Refusal{WrongBucket, ReasonBucketMalformed, "the x-oss-bucket header is not a bucket name", nil}
		}
	}
	switch {
	case bucket != "" && len(p.cfg.Buckets) > 0 && !slices.Contains(p.cfg.Buckets, bucket):
		return "", &Refusal{WrongBucket, ReasonBucketNotAllowed, "this receiver does not accept callbacks for that bucket", nil}
	case header != "" && header != bucket:
		return "", &Refusal{WrongBucket, ReasonBucketConflict, "the body and the x-oss-bucket header name different buckets", nil}
	}
	return bucket, nil
}

// Identify returns the identity of a callback: the first 128 bits of the SHA-256 of what
// OSS signed. So one signed callback is one row, however often and through however many
// receivers it arrives.
//
// The default template holds ${reqId}, which differs for each upload. With a custom template
// that lacks it, two uploads of the same content have the same signature; the digest then
// includes the header x-oss-request-id to tell them apart.
func Identify(signed verify.Request, callback *callbackspec.Callback, requestID string) (uuid.UUID, error) {
	content, err := verify.StringToSign(signed.Target, signed.Body)
	if err != nil {
		return uuid.UUID{}, err
	}
	digest := sha256.New()
	digest.Write(content)
	if callback.RequestID == "" && requestID != "" {
		// The signed content ends with the body, which holds no NUL.
		digest.Write([]byte{0})
		digest.Write([]byte(requestID))
	}
	return uuid.UUID(digest.Sum(nil)[:16]), nil
}

// requestID returns the id in the x-oss-request-id header, which counts if the body has none.
// Nobody signs the header, so it is a hint, and anything that cannot be an id is left out.
func requestID(header string) string {
	if len(header) > maxRequestID || !callbackspec.Storable(header) {
		return ""
	}
	return header
}

// maxRequestID is the longest request id in bytes; OSS's have 24.
const maxRequestID = 128

// foreign are the reasons why a genuine token may be for something else than the callback.
var foreign = []struct {
	err    error
	reason Reason
}{
	{uploadtoken.ErrForeignBucket, ReasonTokenForeignBucket},
	{uploadtoken.ErrForeignKey, ReasonTokenForeignKey},
	{uploadtoken.ErrForeignVars, ReasonTokenForeignVars},
	{uploadtoken.ErrForeignType, ReasonTokenForeignType},
	{uploadtoken.ErrForeignSize, ReasonTokenForeignSize},
}

// checkToken returns the upload that the callback belongs to. The OSS signature alone does
// not prove that, nor that the callback says what was issued: any customer of OSS can have
// it sign any body for our URL, and every uploader knows their own token. See package
// uploadtoken. The claims are zero if there is no token, or if it is refused for another
// reason than ReasonTokenExpired.
func (p *Policy) checkToken(
	callback *callbackspec.Callback, content *callbackspec.Content, target string, now time.Time,
) (uploadtoken.Claims, *Refusal) {
	switch {
	case p.cfg.TokenPolicy == TokenOff, callback.Token == "" && p.cfg.TokenPolicy == TokenOptional:
		return uploadtoken.Claims{}, nil
	case callback.Token == "":
		return uploadtoken.Claims{}, &Refusal{BadToken, ReasonTokenMissing, "the callback does not hold an upload token", nil}
	}
	claims, err := p.cfg.Tokens.Check(callback.Token, uploadtoken.Callback{
		Bucket: callback.Bucket, Object: callback.Object, MimeType: callback.MimeType, Size: callback.Size,
		Query: callbackspec.Query(target), Fields: content,
	}, now)
	return claims, badToken(claims, err)
}

// badToken returns why a token is refused, nil if err is.
func badToken(claims uploadtoken.Claims, err error) *Refusal {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, uploadtoken.ErrExpired):
		cause := fmt.Errorf("%w: valid until %s", err, claims.Expires.UTC().Format(time.RFC3339))
		return &Refusal{ExpiredToken, ReasonTokenExpired, err.Error(), cause}
	}
	for _, f := range foreign {
		if errors.Is(err, f.err) {
			return &Refusal{BadToken, f.reason, err.Error(), err}
		}
	}
	return &Refusal{BadToken, ReasonTokenForged, err.Error(), err}
}
