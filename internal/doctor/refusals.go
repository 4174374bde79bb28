package doctor

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"upcall/internal/callbackspec"
	"upcall/internal/uploadtoken"
)

// maxBody is the receiver's limit.
const maxBody = 64 << 10

// checkRest adds what the receiver refuses besides a bad signature, in its order; body
// is the one that verifies.
func (e *examination) checkRest(body []byte) {
	c := e.capture
	e.checkHTTP(len(body))
	callback, err := callbackspec.Parse(c.Get("Content-Type"), body, e.cfg.Fields)
	switch {
	case errors.Is(err, callbackspec.ErrUnsupportedType):
		e.refuse("unsupported_type", "content_type", fmt.Sprintf("Content-Type is %q", shorten(Mark(c.Get("Content-Type")), 100)),
			"let the proxy pass Content-Type on; OSS sends the callbackBodyType, which is application/x-www-form-urlencoded or application/json")
		return
	case err != nil:
		e.refuse("malformed", "body", oneLine(err), "fix the callbackBody template, or say with UPCALL_FIELDS how it names things")
		return
	}
	if bucket, ok := e.checkBuckets(callback.Bucket, c.Get("X-Oss-Bucket")); ok {
		callback.Bucket = bucket
		e.checkToken(callback)
	}
}

func (e *examination) refuse(code, reason, what, fix string) {
	e.report.Refusals = append(e.report.Refusals, Refusal{code, reason, what, fix})
}

// oneLine is an error as text for people. It may hold text of the capture, such as names
// of fields, so control bytes are marked.
func oneLine(err error) string { return strings.ReplaceAll(Mark(err.Error()), "·", " ") }

func (e *examination) checkHTTP(size int) {
	c := e.capture
	if c.Method != http.MethodPost {
		e.refuse("method_not_allowed", "method", "the method is "+Mark(c.Method), "OSS sends POST: look for a redirect on the way, which makes POST a GET")
	}
	if at, _ := splitTarget(c.Target); e.cfg.CallbackPath != "" && unescape(at) != e.cfg.CallbackPath {
		e.refuse("not_found", "path", fmt.Sprintf("the request is for %s, the receiver answers at %s", Mark(at), Mark(e.cfg.CallbackPath)),
			"set UPCALL_CALLBACK_PATH to the path that reaches the receiver")
	}
	if encoding := c.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		e.refuse("unsupported_type", "content_encoding", "Content-Encoding is "+Mark(encoding), "switch request compression off in the proxy")
	}
	if size > maxBody {
		e.refuse("too_large", "body", fmt.Sprintf("the body has %d bytes, more than 64 KiB", size), "make the callbackBody template smaller")
	}
}

// checkBuckets returns the bucket of the callback, and whether it may be.
func (e *examination) checkBuckets(body, header string) (string, bool) {
	if body != "" && header != "" && body != header {
		e.refuse("wrong_bucket", "bucket_conflict", fmt.Sprintf("the body names bucket %s, the x-oss-bucket header %s", Mark(body), Mark(header)),
			"have the template take ${bucket}; if it does, another customer had OSS sign this, and the refusal is right")
		return "", false
	}
	bucket := body
	if bucket == "" {
		bucket = header
	}
	if bucket != "" && len(e.cfg.Buckets) > 0 && !slices.Contains(e.cfg.Buckets, bucket) {
		e.refuse("wrong_bucket", "bucket_not_allowed", "bucket "+Mark(bucket)+" is not among those of the receiver", "add it to UPCALL_BUCKETS, if it is yours")
		return "", false
	}
	return bucket, true
}

// checkToken checks the upload token, if there are keys for it.
func (e *examination) checkToken(callback callbackspec.Callback) {
	if e.cfg.Tokens == nil {
		e.report.Notes = append(e.report.Notes, "the upload token was not checked: no --token-keys")
		return
	}
	if callback.Token == "" {
		if !e.cfg.TokenOptional {
			e.refuse("bad_token", "token_missing", "the body holds no upload token",
				"have the issuer make the upload, or put ${x:upcall_token} into the template; UPCALL_FIELDS says so if its field is not upcall_token")
		}
		return
	}
	at := e.at()
	claims, err := e.cfg.Tokens.Check(callback.Token, callback.Bucket, callback.Object, at)
	switch {
	case errors.Is(err, uploadtoken.ErrExpired):
		e.refuse("expired_token", "token_expired", fmt.Sprintf("the upload token was good until %s, and this was at %s",
			claims.Expires.UTC().Format(time.RFC3339), at.UTC().Format(time.RFC3339)), "have uploads issued with a longer --expires; a repeat of a recorded callback is accepted all the same")
	case errors.Is(err, uploadtoken.ErrForeignBucket):
		e.refuse("bad_token", "token_foreign_bucket", "the upload token was made for another bucket than "+Mark(callback.Bucket), "issue each upload its own token")
	case errors.Is(err, uploadtoken.ErrForeignKey):
		e.refuse("bad_token", "token_foreign_key", "the upload token was made for another object key than "+Mark(callback.Object), "issue each upload its own token")
	case err != nil:
		e.refuse("bad_token", "token_forged", "none of the given keys made the upload token", "give receiver and issuer the same UPCALL_TOKEN_KEYS; if they have, the token is forged")
	}
}

// at is the time of the callback.
func (e *examination) at() time.Time {
	if !e.cfg.At.IsZero() {
		return e.cfg.At
	}
	if date, err := http.ParseTime(e.capture.Get("Date")); err == nil {
		e.report.Notes = append(e.report.Notes, "the upload token was checked for the time in the Date header")
		return date
	}
	return e.cfg.Now()
}
