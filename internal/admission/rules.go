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
	if p.cfg.CallbackPath != "" && r.Path != p.cfg.CallbackPath {
		return &Refusal{NotFound, ReasonPath, "there is nothing here", nil}
	}
	return nil
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

// OSS compresses nothing, and to unpack first would be a second reading of the message,
// and a bomb.
func checkContentEncoding(r *Request) *Refusal {
	if r.ContentEncoding != "" && !strings.EqualFold(r.ContentEncoding, "identity") {
		return &Refusal{UnsupportedType, ReasonContentEncoding, "a callback has no content encoding", nil}
	}
	return nil
}

// checkLength counts what was read whatever the length says: a chunked body has none and
// may never end.
func checkLength(r *Request) *Refusal {
	if r.Length > MaxBody || len(r.Body) > MaxBody {
		return &Refusal{TooLarge, ReasonBody, "the body is larger than 64 KiB", nil}
	}
	return nil
}

// Signed returns what the signature of a request is about. Its target is the raw one,
// with the path that OSS asked for where a proxy has changed it.
func (p *Policy) Signed(r *Request) verify.Request {
	target := r.Target
	if p.publicPath != "" {
		target = p.publicPath
		if i := strings.IndexByte(r.Target, '?'); i >= 0 {
			target += r.Target[i:]
		}
	}
	return verify.Request{
		Target: target, Body: r.Body,
		Authorization: r.Authorization, PubKeyURL: r.PubKeyURL, SignatureVersion: r.SignatureVersion,
	}
}

// verifyCodes give what package verify says its place in the contract. "Cannot check" is
// never "invalid".
var verifyCodes = map[verify.Kind]Code{
	verify.NotSigned:    BadSignature,
	verify.UntrustedKey: UntrustedKey,
	verify.CannotCheck:  Unavailable,
}

func notVerified(err error) *Refusal {
	failure, _ := errors.AsType[*verify.Failure](err) // as any error of the package is
	return &Refusal{verifyCodes[failure.Kind()], Reason(failure.Reason()), failure.Error(), err}
}

func notParsed(err error) *Refusal {
	if errors.Is(err, callbackspec.ErrUnsupportedType) {
		return &Refusal{UnsupportedType, ReasonContentType, err.Error(), err}
	}
	return &Refusal{Malformed, ReasonBody, err.Error(), err}
}

// checkBucket returns the bucket of the callback: the one in the signed body, else the
// one in the header. The header is not signed, but OSS sets it to the bucket of the
// upload. So a body that names another bucket is another customer's, who had OSS sign
// our bucket's name for our URL.
func (p *Policy) checkBucket(body, header string) (string, *Refusal) {
	bucket := body
	if bucket == "" {
		bucket = header
		if !callbackspec.Storable(header) {
			return "", &Refusal{WrongBucket, ReasonBucketMalformed, "the x-oss-bucket header is no bucket's name", nil}
		}
	}
	switch {
	case bucket != "" && len(p.cfg.Buckets) > 0 && !slices.Contains(p.cfg.Buckets, bucket):
		return "", &Refusal{WrongBucket, ReasonBucketNotAllowed, "this receiver takes no callbacks for that bucket", nil}
	case header != "" && header != bucket:
		return "", &Refusal{WrongBucket, ReasonBucketConflict, "the body and the x-oss-bucket header name different buckets", nil}
	}
	return bucket, nil
}

// Identify returns the identity of a callback: the first 128 bits of the SHA-256 of what
// OSS signed, so that one signed callback is one row, however often and through however
// many receivers it comes.
//
// The default template holds ${reqId}, which differs for each upload. Where a custom
// template lacks it, two uploads of the same content sign alike, and the header
// x-oss-request-id joins the digest to tell them apart.
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

// checkToken returns the upload that the callback belongs to. The OSS signature alone
// proves no such thing, see package uploadtoken. With ReasonTokenExpired the id is valid.
func (p *Policy) checkToken(callback *callbackspec.Callback, now time.Time) (uuid.NullUUID, *Refusal) {
	switch {
	case p.cfg.TokenPolicy == TokenOff:
		return uuid.NullUUID{}, nil
	case callback.Token == "" && p.cfg.TokenPolicy == TokenOptional:
		return uuid.NullUUID{}, nil
	case callback.Token == "":
		return uuid.NullUUID{}, &Refusal{BadToken, ReasonTokenMissing, "the callback holds no upload token", nil}
	}
	claims, err := p.cfg.Tokens.Check(callback.Token, callback.Bucket, callback.Object, now)
	id := uuid.NullUUID{UUID: claims.UploadID, Valid: true}
	if err == nil {
		return id, nil
	}
	refusal := &Refusal{BadToken, ReasonTokenForged, err.Error(), err}
	switch {
	case errors.Is(err, uploadtoken.ErrForeignBucket):
		refusal.Reason = ReasonTokenForeignBucket
	case errors.Is(err, uploadtoken.ErrForeignKey):
		refusal.Reason = ReasonTokenForeignKey
	case errors.Is(err, uploadtoken.ErrExpired):
		refusal.Code, refusal.Reason = ExpiredToken, ReasonTokenExpired
		refusal.Cause = fmt.Errorf("%w: valid until %s", err, claims.Expires.UTC().Format(time.RFC3339))
		return id, refusal
	}
	return uuid.NullUUID{}, refusal
}
