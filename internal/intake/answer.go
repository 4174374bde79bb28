package intake

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"upcall/internal/callbackspec"
	"upcall/internal/event"
	"upcall/internal/recorder"
	"upcall/internal/uploadtoken"
	"upcall/internal/verify"
)

// An acceptance is the answer to a callback that is durable. OSS hands it to the
// uploader as it is.
type acceptance struct {
	Status    string           `json:"status"` // "ok"
	EventID   uuid.UUID        `json:"event_id"`
	UploadID  uuid.NullUUID    `json:"upload_id"` // null without a token
	Duplicate bool             `json:"duplicate"`
	Durable   recorder.Durable `json:"durable"`
}

func newAcceptance(id uuid.UUID, uploadID uuid.NullUUID, o recorder.Outcome) *acceptance {
	return &acceptance{Status: "ok", EventID: id, UploadID: uploadID, Duplicate: o.Duplicate, Durable: o.Durable}
}

// A code is what a refused sender may branch on.
type code string

const (
	codeMalformed        code = "malformed"
	codeBadSignature     code = "bad_signature"
	codeUntrustedKey     code = "untrusted_key"
	codeBadToken         code = "bad_token"
	codeExpiredToken     code = "expired_token"
	codeWrongBucket      code = "wrong_bucket"
	codeNotFound         code = "not_found"
	codeMethodNotAllowed code = "method_not_allowed"
	codeTooLarge         code = "too_large"
	codeUnsupportedType  code = "unsupported_type"
	codeUnavailable      code = "unavailable"
)

var statuses = map[code]int{
	codeMalformed:        http.StatusBadRequest,
	codeBadSignature:     http.StatusForbidden,
	codeUntrustedKey:     http.StatusForbidden,
	codeBadToken:         http.StatusForbidden,
	codeExpiredToken:     http.StatusForbidden,
	codeWrongBucket:      http.StatusForbidden,
	codeNotFound:         http.StatusNotFound,
	codeMethodNotAllowed: http.StatusMethodNotAllowed,
	codeTooLarge:         http.StatusRequestEntityTooLarge,
	codeUnsupportedType:  http.StatusUnsupportedMediaType,
	codeUnavailable:      http.StatusServiceUnavailable,
}

// Reasons that something else here depends upon, too.
const (
	reasonRevoked = "token_revoked"
	reasonBuckets = "bucket_conflict"
)

// A refusal is why a callback is not accepted: what the sender is told, a label for
// the metrics and the log, and the cause for the log alone.
type refusal struct {
	code    code
	message string
	reason  string
	cause   error
}

func (r *refusal) Error() string { return r.message }
func (r *refusal) Unwrap() error { return r.cause }

// verifyCodes give what package verify says its place in the contract.
var verifyCodes = map[verify.Kind]code{
	verify.NotSigned:    codeBadSignature,
	verify.UntrustedKey: codeUntrustedKey,
	verify.CannotCheck:  codeUnavailable,
}

// rules map the errors of the packages below to refusals; the first that matches
// counts. "Cannot check" is never "invalid".
var rules = []struct {
	is      error
	refusal refusal
}{
	{callbackspec.ErrUnsupportedType, refusal{codeUnsupportedType, "", "content_type", nil}},
	{callbackspec.ErrMalformed, refusal{codeMalformed, "", "body", nil}},
	{uploadtoken.ErrExpired, refusal{codeExpiredToken, "", "token_expired", nil}},
	{uploadtoken.ErrForged, refusal{codeBadToken, "", "token_forged", nil}},
	{uploadtoken.ErrForeignBucket, refusal{codeBadToken, "", "token_foreign_bucket", nil}},
	{uploadtoken.ErrForeignKey, refusal{codeBadToken, "", "token_foreign_key", nil}},
	{event.ErrRevoked, refusal{codeBadToken, "", reasonRevoked, nil}},
	{event.ErrUnstorable, refusal{codeMalformed, "PostgreSQL cannot hold a value of the callback", "not_storable", nil}},
	{event.ErrSpoolFull, refusal{codeUnavailable, "the callback could not be recorded: the spool is full", "spool_full", nil}},
	{event.ErrSpoolUnwritable, refusal{codeUnavailable, "the callback could not be recorded in time", "spool_unwritable", nil}},
	{event.ErrUnavailable, refusal{codeUnavailable, "the callback could not be recorded in time", "database", nil}},
	{context.DeadlineExceeded, refusal{codeUnavailable, "the callback could not be recorded in time", "deadline", nil}},
}

// asRefusal gives an error its place in the contract. What no rule knows is ours to
// answer for: 503, so that OSS tries its next URL.
func asRefusal(err error) *refusal {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r
	}
	if failure, ok := errors.AsType[*verify.Failure](err); ok {
		return &refusal{verifyCodes[failure.Kind()], failure.Error(), failure.Reason(), err}
	}
	for _, rule := range rules {
		if errors.Is(err, rule.is) {
			r := rule.refusal
			if r.cause = err; r.message == "" {
				r.message = err.Error()
			}
			return &r
		}
	}
	return &refusal{codeUnavailable, "the callback could not be recorded", "internal", err}
}

// refuse answers with an error.
func (s *Server) refuse(c *gin.Context, r *refusal) {
	event := eventOf(c)
	event.outcome, event.reason, event.err = string(r.code), r.reason, r.cause
	s.cfg.Metrics.refusals.WithLabelValues(r.reason).Inc()
	if r.reason == reasonBuckets {
		s.cfg.Metrics.conflicts.WithLabelValues(reasonBuckets).Inc()
	}
	if failure, ok := errors.AsType[*verify.Failure](r.cause); ok {
		s.cfg.Metrics.verifyFailures.WithLabelValues(failure.Reason()).Inc()
	}
	status := statuses[r.code]
	switch {
	case r.code == codeTooLarge:
		c.Header("Connection", "close") // the rest of the message is not read
	case status == http.StatusServiceUnavailable:
		c.Header("Retry-After", "1")
	}
	answerJSON(c, status, newErrorAnswer(r.code, r.message))
	s.noteRefusal(c.Request, r, event)
}

// An errorAnswer is the answer to what is refused.
type errorAnswer struct {
	Error struct {
		Code    code   `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

func newErrorAnswer(code code, message string) errorAnswer {
	var answer errorAnswer
	answer.Error.Code, answer.Error.Message = code, message
	return answer
}

// answerJSON writes the whole answer at once, with the Content-Length without which
// OSS fails a callback.
func answerJSON(c *gin.Context, status int, answer any) {
	body, err := json.Marshal(answer)
	if err != nil {
		panic("intake: answers always marshal: " + err.Error())
	}
	c.Header("Content-Length", strconv.Itoa(len(body)))
	c.Data(status, "application/json", body)
}
