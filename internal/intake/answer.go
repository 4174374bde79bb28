package intake

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"upcall/internal/admission"
	"upcall/internal/event"
	"upcall/internal/recorder"
	"upcall/internal/verify"
)

// An acceptance is the answer to a callback that is durable. OSS passes it unchanged to
// the uploader.
type acceptance struct {
	Status    string           `json:"status"` // "ok"
	EventID   uuid.UUID        `json:"event_id"`
	UploadID  uuid.NullUUID    `json:"upload_id"` // null without a token
	Duplicate bool             `json:"duplicate"`
	Durable   recorder.Durable `json:"durable"`
}

func newAcceptance(e *event.Event, o recorder.Outcome) *acceptance {
	return &acceptance{Status: "ok", EventID: e.ID, UploadID: e.UploadID, Duplicate: o.Duplicate, Durable: o.Durable}
}

var statuses = map[admission.Code]int{
	admission.Malformed:        http.StatusBadRequest,
	admission.BadSignature:     http.StatusForbidden,
	admission.UntrustedKey:     http.StatusForbidden,
	admission.BadToken:         http.StatusForbidden,
	admission.ExpiredToken:     http.StatusForbidden,
	admission.WrongBucket:      http.StatusForbidden,
	admission.NotFound:         http.StatusNotFound,
	admission.MethodNotAllowed: http.StatusMethodNotAllowed,
	admission.TooLarge:         http.StatusRequestEntityTooLarge,
	admission.UnsupportedType:  http.StatusUnsupportedMediaType,
	admission.Unavailable:      http.StatusServiceUnavailable,
}

// recording maps the errors of a recorder to refusals; the first that matches counts.
var recording = []struct {
	is      error
	code    admission.Code
	reason  admission.Reason
	message string // "" means the text of the error
}{
	{event.ErrRevoked, admission.BadToken, admission.ReasonTokenRevoked, ""},
	{event.ErrOverused, admission.BadToken, admission.ReasonTokenOverused, ""},
	{event.ErrUnstorable, admission.Malformed, admission.ReasonNotStorable, "PostgreSQL cannot hold a value of the callback"},
	{event.ErrSpoolFull, admission.Unavailable, admission.ReasonSpoolFull, "the callback could not be recorded: the spool is full"},
	{event.ErrSpoolUnwritable, admission.Unavailable, admission.ReasonSpoolUnwritable, late},
	{event.ErrDeadLetter, admission.Unavailable, admission.ReasonNotStorable, "PostgreSQL cannot hold the callback"},
	{event.ErrUnavailable, admission.Unavailable, admission.ReasonDatabase, late},
	{context.DeadlineExceeded, admission.Unavailable, admission.ReasonDeadline, late},
}

const late = "the callback could not be recorded in time"

// notRecorded says why a callback that was admitted is refused after all. An error that is
// not in the table is our mistake: 503, so that OSS tries its next URL.
func notRecorded(err error) *admission.Refusal {
	for _, rule := range recording {
		if errors.Is(err, rule.is) {
			return &admission.Refusal{Code: rule.code, Reason: rule.reason, Message: cmp.Or(rule.message, err.Error()), Cause: err}
		}
	}
	return ours(admission.ReasonInternal, err)
}

// ours is the refusal because of a mistake of ours.
func ours(reason admission.Reason, err error) *admission.Refusal {
	return &admission.Refusal{Code: admission.Unavailable, Reason: reason, Message: "the callback could not be recorded", Cause: err}
}

// refuse answers with an error.
func (s *Server) refuse(c *gin.Context, r *admission.Refusal) {
	seen := seenIn(c)
	seen.outcome, seen.refusal = string(r.Code), r
	s.cfg.Metrics.refusals.WithLabelValues(string(r.Reason)).Inc()
	if r.Reason == admission.ReasonBucketConflict {
		s.cfg.Metrics.conflicts.WithLabelValues(string(r.Reason)).Inc()
	}
	if failure, ok := errors.AsType[*verify.Failure](r.Cause); ok {
		s.cfg.Metrics.verifyFailures.WithLabelValues(failure.Reason()).Inc()
	}
	switch r.Code {
	case admission.TooLarge:
		c.Header("Connection", "close") // the rest of the message is not read
		seen.request.Body = nil         // and its beginning is of no use
	case admission.MethodNotAllowed:
		c.Header("Allow", http.MethodPost)
	case admission.Unavailable:
		c.Header("Retry-After", "1")
	}
	answer(c, statuses[r.Code], errorJSON(r.Code, r.Message))
	s.noteRefusal(seen)
}

// errorJSON is the body of a refusal.
func errorJSON(code admission.Code, message string) []byte {
	return encode(map[string]any{"error": map[string]string{"code": string(code), "message": message}})
}

func encode(answer any) []byte {
	body, err := json.Marshal(answer)
	if err != nil {
		panic("intake: answers always marshal: " + err.Error())
	}
	return body
}

// answer writes a JSON body with its Content-Length, without which OSS fails a callback.
func answer(c *gin.Context, status int, body []byte) {
	c.Header("Content-Length", strconv.Itoa(len(body)))
	c.Data(status, "application/json", body)
}
