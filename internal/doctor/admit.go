package doctor

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"upcall/internal/admission"
	"upcall/internal/callbackspec"
	"upcall/internal/event"
	"upcall/internal/verify"
)

// with returns the request with what was signed in place of what was received.
func (e *examination) with(signed verify.Request) admission.Request {
	r := e.request
	r.Target, r.Body, r.Length = signed.Target, signed.Body, int64(len(signed.Body))
	r.Authorization, r.PubKeyURL, r.SignatureVersion = signed.Authorization, signed.PubKeyURL, signed.SignatureVersion
	return r
}

// admit adds what the receiver refuses about a request whose signature is good. It fixes
// what is wrong with the head of the request each time, to find what the receiver would
// refuse next.
func (e *examination) admit(ctx context.Context, r admission.Request) {
	for {
		learned, refusal := e.policy.Admit(ctx, &r, e.at)
		e.noteToken(learned, refusal)
		if refusal == nil {
			for _, odd := range callbackspec.Oddities(r.ContentType, r.Body) {
				e.note(oneLine(odd))
			}
			return
		}
		e.report.Refusals = append(e.report.Refusals, Refusal{
			Code: refusal.Code, Reason: refusal.Reason, What: e.describe(refusal, &r, learned), Fix: fixOf(refusal),
		})
		switch refusal.Reason {
		case admission.ReasonPath:
			r.Path = e.cfg.Admission.CallbackPaths[0] // also as a pattern it is one of its own paths
		case admission.ReasonMethod:
			r.Method = http.MethodPost
		case admission.ReasonHeaders:
			r.HeaderBytes = 0
		case admission.ReasonContentEncoding:
			r.ContentEncoding = ""
		default:
			return
		}
	}
}

// describe says what a refusal is about. Unlike the refusal's own message, which is for
// the sender, it shows the part of the request.
func (e *examination) describe(refusal *admission.Refusal, r *admission.Request, learned *event.Event) string {
	bucket := Mark(cmp.Or(learned.Callback.Bucket, r.Bucket))
	switch refusal.Reason {
	case admission.ReasonPath:
		return fmt.Sprintf("the request is for %s, but the receiver answers at %s",
			Mark(r.Path), Mark(strings.Join(e.cfg.Admission.CallbackPaths, ", ")))
	case admission.ReasonMethod:
		return "the method is " + Mark(r.Method)
	case admission.ReasonHeaders:
		return fmt.Sprintf("the headers have %d bytes, more than 64 KiB", r.HeaderBytes)
	case admission.ReasonContentEncoding:
		return "Content-Encoding is " + Mark(r.ContentEncoding)
	case admission.ReasonContentType:
		return fmt.Sprintf("Content-Type is %q", shorten(Mark(r.ContentType), 100))
	case admission.ReasonBucketConflict:
		return fmt.Sprintf("the body names bucket %s, but the x-oss-bucket header names %s", bucket, Mark(r.Bucket))
	case admission.ReasonBucketMalformed:
		return "the x-oss-bucket header is " + bucket
	case admission.ReasonBucketNotAllowed:
		return "bucket " + bucket + " is not one of the receiver's"
	case admission.ReasonTokenForged:
		return "none of the given keys made the upload token"
	case admission.ReasonTokenForeignBucket:
		return "the upload token was made for a bucket other than " + bucket
	case admission.ReasonTokenForeignKey:
		return "the upload token was made for an object key other than " + Mark(learned.Callback.Object)
	case admission.ReasonTokenForeignVars:
		return "the upload token was made for another template, other custom variables or another query"
	case admission.ReasonTokenForeignType:
		return "the upload token was made for a content type other than " + Mark(learned.Callback.MimeType)
	case admission.ReasonTokenForeignSize:
		return fmt.Sprintf("the upload token was made for a size other than %d", *learned.Callback.Size)
	case admission.ReasonTokenExpired:
		return "the " + oneLine(refusal.Cause) + "; the callback came at " + e.at.UTC().Format(time.RFC3339)
	}
	return oneLine(refusal.Message)
}

// oneLine is a message for people. It may contain text of the capture, such as names of
// fields, so control bytes are marked.
func oneLine(message any) string { return strings.ReplaceAll(Mark(fmt.Sprint(message)), "·", " ") }

// noteToken says whether the upload token was checked, and for what time.
func (e *examination) noteToken(learned *event.Event, refusal *admission.Refusal) {
	switch {
	case refusal != nil && refusal.Code != admission.BadToken && refusal.Code != admission.ExpiredToken:
		// The token was not reached.
	case e.cfg.Admission.Tokens == nil:
		e.note("the upload token was not checked: no --token-keys")
	case e.cfg.Admission.TokenPolicy == admission.TokenOff:
		e.note("the upload token was not checked: UPCALL_TOKEN is off")
	case learned.Callback.Token != "" && e.dated:
		e.note("the upload token was checked for the time in the Date header")
	}
}

// time is when the callback came, and whether that is from its Date header.
func (e *examination) time() (at time.Time, dated bool) {
	if !e.cfg.At.IsZero() {
		return e.cfg.At, false
	}
	if !e.capture.At.IsZero() {
		return e.capture.At, false
	}
	if date, err := http.ParseTime(e.capture.Get("Date")); err == nil {
		return date, true
	}
	return e.cfg.Now(), false
}

// fixOf says what to do about a refusal. About a body that cannot be parsed, its parser knows more
// than that it is one.
func fixOf(refusal *admission.Refusal) string {
	if refusal.Code == admission.Malformed && refusal.Reason == admission.ReasonBody {
		return "in the callbackBody template: " + callbackspec.Fix(refusal.Cause)
	}
	return fixes[refusal.Reason]
}

// fixes say what to do about a refusal. Those for signatures name causes that the search
// does not try.
var fixes = map[admission.Reason]string{
	admission.ReasonPath:            "set UPCALL_CALLBACK_PATH to the path that reaches the receiver",
	admission.ReasonMethod:          "OSS sends POST: look for a redirect on the way, which turns POST into GET",
	admission.ReasonHeaders:         "OSS sends less than 2 KiB: find what adds headers on the way",
	admission.ReasonContentEncoding: "turn off request compression in the proxy",
	admission.ReasonContentType: "have the proxy pass Content-Type through; OSS sends the callbackBodyType, " +
		"which is application/x-www-form-urlencoded or application/json",
	admission.ReasonBody: "shorten the callbackBody template: OSS sends less than 64 KiB",
	admission.ReasonBucketConflict: "use ${bucket} in the template; if it is there, another customer had OSS sign this, " +
		"and the refusal is right",
	admission.ReasonBucketMalformed:  "pass x-oss-bucket through unchanged, or put bucket=${bucket} into the template",
	admission.ReasonBucketNotAllowed: "if the bucket is yours, add it to UPCALL_BUCKETS",
	admission.ReasonTokenMissing: "have the issuer make the upload, or put ${x:upcall_token} into the template; " +
		"if its field has a name other than upcall_token, map it with UPCALL_FIELDS",
	admission.ReasonTokenForged:        "give receiver and issuer the same UPCALL_TOKEN_KEYS; if they have them, the token is forged",
	admission.ReasonTokenForeignBucket: "issue a separate token for each upload",
	admission.ReasonTokenForeignKey:    "issue a separate token for each upload",
	admission.ReasonTokenForeignVars: "have OSS send the template, variables and URL that the issuer made, unchanged; " +
		"if nobody changed them, the callback is forged",
	admission.ReasonTokenForeignType: "have the uploader send the content type that was issued, or issue without one",
	admission.ReasonTokenForeignSize: "have the uploader send as many bytes as were issued, or issue without a size",
	admission.ReasonTokenExpired: "issue uploads with a longer --expires; " +
		"a repeat of a recorded callback is accepted anyway",

	"signature_missing": "a proxy or server removed the header (Apache: CGIPassAuth On; " +
		"nginx: proxy_set_header Authorization $http_authorization; no gateway may use Authorization for itself), " +
		"or the request did not come from OSS",
	"signature_encoding": "record the whole header again; a request without an OSS signature did not come from OSS",
	"signature_length": "the header was cut off, or was made with another key: record the whole header again, " +
		"or name the key with --key-url",
	"signature_range": "OSS never sends this: the signature was damaged or forged",
	"signature_padding": "none of the available keys made this signature: if an emulator made it, name its key with " +
		"--key-url or --key-file, and let the receiver trust it (UPCALL_TRUST_KEY_URLS); otherwise it was damaged or forged",
	digestMismatch: "the signature is genuine, but none of the changes known to happen on the way explains it: " +
		"it was copied from another callback, or a value was changed; give --callback-url (as OSS has it) if path or query may differ, " +
		"and record the body as bytes",
	"target_malformed":  "OSS sends no such request line: " + keepPath,
	"signature_version": "leave signatureVersion out of the callback parameter: only version 1.0 can be verified",
	"key_url_untrusted": "if this is your emulator, let the receiver trust it (UPCALL_TRUST_KEY_URLS) and name it here with --key-url; " +
		"otherwise it is forged",
	"key_url_encoding": "pass x-oss-pub-key-url through unchanged",
	"key_url_length":   "OSS sends no header this long: it is forged",
}

const (
	digestMismatch admission.Reason = "digest_mismatch"

	// targetChanged is the fix for a digest mismatch where the body is as it was sent.
	targetChanged = "Content-MD5 matches, so the body is unchanged and the path or query was changed: give --callback-url " +
		"(as OSS has it, with its query), or compare the string to sign with it; otherwise the signature was copied from another callback"
)
