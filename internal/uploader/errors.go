package uploader

import (
	"cmp"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"upcall/internal/fault"
	"upcall/internal/ossrule"
)

var (
	// ErrCallbackFailed means that OSS stored the object but could not report it: the
	// status 203, which most clients take for success.
	ErrCallbackFailed = errors.New("the object is stored, but not recorded")
	// ErrUploadGone means that OSS does not know the multipart upload, or no longer does.
	ErrUploadGone = errors.New("the multipart upload is over")
	// ErrAnswerLost means that the object may be stored and reported, but that the answer
	// never came.
	ErrAnswerLost = errors.New("the answer was lost")
	// ErrChecksum means that OSS stored something other than what was sent.
	ErrChecksum = errors.New("the CRC-64 does not match")
	// ErrNotOSS means an answer that OSS does not give: without a CRC-64, before the
	// file was read, or without the receiver's JSON.
	ErrNotOSS = errors.New("the answer is not from OSS")
	// ErrNetwork means that no answer came. The request is retried.
	ErrNetwork = errors.New("no answer")
)

// A StatusError is an answer of OSS other than success.
type StatusError struct {
	What      string // what was sent, as in "part 7"
	Status    int    // HTTP
	Code      string // OSS's, as in SignatureDoesNotMatch; "" if the answer has none
	Message   string // OSS's, one line
	EC        string // OSS's number of the exact cause; may be ""
	RequestID string // for OSS's support; may be ""

	after     time.Duration // how long OSS asks to wait; 0 if it does not say
	published bool          // OSS has published an event of the object that it stored

	signs, unlisted bool // as in Config
}

// maxMessage limits how much of an answer is shown, in bytes.
const maxMessage = 500

func newStatusError(what string, a answer) *StatusError {
	var document struct{ Code, Message, RequestId, EC string }
	_ = xml.Unmarshal(a.body, &document)                                 // a body other than XML has no code
	seconds, _ := strconv.ParseUint(a.header.Get("Retry-After"), 10, 16) // a date is ignored
	return &StatusError{
		What:      what,
		Status:    a.status,
		Code:      shown(document.Code),
		Message:   shown(document.Message),
		EC:        shown(cmp.Or(document.EC, a.header.Get("x-oss-ec"))),
		RequestID: shown(cmp.Or(document.RequestId, a.header.Get("x-oss-request-id"))),
		after:     time.Duration(seconds) * time.Second,
		published: eventPublished(a.header),
	}
}

// eventPublished reports whether OSS says that it has published an event of what it stored, which a
// rule of the bucket asks for. Then the receiver may be notified though it was not called back. OSS's
// documents have a header x-oss-event-status of {"Result": "Ok"} in Base64, those of SMQ (2026-02)
// x-oss-process-status of {"code": "Success", "type": "EventNotification"}.
func eventPublished(h http.Header) bool {
	var said struct{ Result, Code, Type string }
	for _, name := range []string{"x-oss-event-status", "x-oss-process-status"} {
		document, err := base64.StdEncoding.DecodeString(h.Get(name))
		if err == nil {
			_ = json.Unmarshal(document, &said) // what it does not say stays empty
		}
	}
	return said.Result == "Ok" || said.Code == "Success" && said.Type == "EventNotification"
}

// shown is a text of an answer, safe for a terminal and not too long for a screen.
func shown(s string) string { return fault.Line(s[:min(len(s), maxMessage)]) }

// Error says what went wrong and what to do.
func (e *StatusError) Error() string {
	reason := cmp.Or(e.Message, "it does not say why")
	details := "request " + cmp.Or(e.RequestID, "unknown")
	if e.EC != "" {
		details += ", EC " + e.EC
	}
	code := strings.TrimSpace(fmt.Sprintf("%d %s", e.Status, e.Code))
	if e.Status == http.StatusNonAuthoritativeInfo {
		return fmt.Sprintf("%v: OSS could not call back, and answered %s: %s (%s); %s", ErrCallbackFailed, code, reason, details, e.fix())
	}
	return fmt.Sprintf("%s: OSS answered %s: %s (%s); %s", e.What, code, reason, details, e.fix())
}

// Unwrap returns the sentinel for the answer, or nil.
func (e *StatusError) Unwrap() error {
	switch {
	case e.Status == http.StatusNonAuthoritativeInfo:
		return ErrCallbackFailed
	case e.Status == http.StatusNotFound && e.Code == "NoSuchUpload":
		return ErrUploadGone
	}
	return nil
}

func (e *StatusError) fix() string {
	switch {
	case e.Status == http.StatusNonAuthoritativeInfo:
		return e.recordedLater()
	case e.Status >= 300 && e.Status < 400:
		return "redirects are not followed, because the file would go elsewhere: check the endpoint that the URL was made for"
	case e.signs && ossrule.Advice(e.Code, e.Message) != "":
		return ossrule.Advice(e.Code, e.Message)
	case strings.HasPrefix(e.Code, "SecurityToken"), e.Code == "InvalidSecurityToken":
		return "get a new URL or manifest: the temporary credentials that signed this one have expired"
	case ossrule.Expired(e.Code, e.Message):
		return "get a new URL or manifest that is valid for longer"
	case e.Code == "AccessDenied" && strings.Contains(strings.ToLower(e.Message), "not yet"):
		return "correct the clock of the machine that makes the URLs"
	case e.Code == "SignatureDoesNotMatch":
		return "send exactly what was signed: the URL or a header was changed, or a proxy added headers"
	case e.Code == "FileAlreadyExists":
		return "the object exists and must not be overwritten: choose another key"
	case e.Code == "NoSuchUpload":
		return "it was completed or aborted: check whether the object exists, or start a new upload"
	case e.retryable():
		return "try again later"
	case e.signs:
		return "check the flags and the credentials"
	}
	return "get a new URL or manifest that allows this upload"
}

// recordedLater says what may still record an upload whose callback failed. Whether the receiver
// is set up for that is not known here.
func (e *StatusError) recordedLater() string {
	const notification, listing = "OSS's event notification within minutes if the receiver takes those",
		"the next reconcile run if there is one"
	by := listing
	switch {
	case e.published && e.unlisted:
		by = notification
	case e.published:
		by = notification + ", or by " + listing
	case e.unlisted:
		return "treat this as failed: fix the receiver, then upload again"
	}
	return "treat this as failed until it is recorded: the upload will be recorded by " + by +
		"; otherwise fix the receiver, then upload again"
}

// retryable reports whether the same request may succeed later.
func (e *StatusError) retryable() bool {
	switch e.Status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return false
	}
	return e.Status >= 500
}

// retryable reports whether another attempt may help. A request without an answer may
// have been carried out, but every request here may be sent twice: parts replace
// themselves, and a second PUT or completion is reported once more or rejected.
func retryable(err error) bool {
	if status, ok := errors.AsType[*StatusError](err); ok {
		return status.retryable()
	}
	// A server that cannot prove that it is OSS is not asked again, so that it is not trusted
	// by accident.
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return false
	}
	return errors.Is(err, ErrNetwork)
}

// ambiguous reports whether a request that failed with err may have been carried out.
func ambiguous(err error) bool {
	if status, ok := errors.AsType[*StatusError](err); ok {
		return status.Status >= 500
	}
	if network, ok := errors.AsType[*net.OpError](err); ok && network.Op == "dial" {
		return false // it was never sent
	}
	return errors.Is(err, ErrNetwork)
}
