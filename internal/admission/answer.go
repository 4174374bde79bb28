package admission

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"upcall/internal/event"
)

var statuses = map[Code]int{
	Malformed:        http.StatusBadRequest,
	BadSignature:     http.StatusForbidden,
	UntrustedKey:     http.StatusForbidden,
	BadToken:         http.StatusForbidden,
	ExpiredToken:     http.StatusForbidden,
	WrongBucket:      http.StatusForbidden,
	NotFound:         http.StatusNotFound,
	MethodNotAllowed: http.StatusMethodNotAllowed,
	TooLarge:         http.StatusRequestEntityTooLarge,
	UnsupportedType:  http.StatusUnsupportedMediaType,
	Unavailable:      http.StatusServiceUnavailable,
}

// Status returns the HTTP status of an answer with this code.
func (c Code) Status() int { return statuses[c] }

// Body returns the answer to the sender, as JSON.
func (r *Refusal) Body() []byte {
	body, err := json.Marshal(map[string]any{"error": map[string]string{"code": string(r.Code), "message": r.Message}})
	if err != nil {
		panic("admission: texts always marshal: " + err.Error())
	}
	return body
}

// recording maps the errors of a recorder to refusals; the first that matches counts.
var recording = []struct {
	is      error
	code    Code
	reason  Reason
	message string // "" means the text of the error
}{
	{event.ErrRevoked, BadToken, ReasonTokenRevoked, ""},
	{event.ErrOverused, BadToken, ReasonTokenOverused, ""},
	{event.ErrUnstorable, Malformed, ReasonNotStorable, "PostgreSQL cannot hold a value of the callback"},
	{event.ErrSpoolFull, Unavailable, ReasonSpoolFull, "the callback could not be recorded: the spool is full"},
	{event.ErrSpoolUnwritable, Unavailable, ReasonSpoolUnwritable, late},
	{event.ErrStreamFull, Unavailable, ReasonStreamFull, "the callback could not be recorded: the stream is full"},
	{event.ErrStreamUnwritable, Unavailable, ReasonStreamUnwritable, late},
	{event.ErrDeadLetter, Unavailable, ReasonNotStorable, "PostgreSQL cannot hold the callback"},
	{event.ErrUnavailable, Unavailable, ReasonDatabase, late},
	{context.DeadlineExceeded, Unavailable, ReasonDeadline, late},
}

// Why a callback that the stream had already acknowledged was refused when it was to be recorded. They mark rows
// of refused callbacks; no request is answered with them.
const (
	ReasonRevokedAfter  Reason = "token_revoked_after_answer"
	ReasonOverusedAfter Reason = "token_overused_after_answer"
)

const late = "the callback could not be recorded in time"

// NotRecorded says why a callback that was admitted is refused after all. An error that is
// not in the table is our mistake: 503, so that OSS tries its next URL.
func NotRecorded(err error) *Refusal {
	for _, rule := range recording {
		if errors.Is(err, rule.is) {
			return &Refusal{rule.code, rule.reason, cmp.Or(rule.message, err.Error()), err}
		}
	}
	return Ours(ReasonInternal, err)
}

// Ours is the refusal because of a mistake of Ours.
func Ours(reason Reason, err error) *Refusal {
	return &Refusal{Unavailable, reason, "the callback could not be recorded", err}
}
