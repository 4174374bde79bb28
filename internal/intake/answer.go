package intake

import (
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
	EventID   uuid.UUID
	UploadID  uuid.NullUUID // null without a token
	Duplicate bool
	Durable   recorder.Durable
}

func newAcceptance(e *event.Event, o recorder.Outcome) *acceptance {
	return &acceptance{EventID: e.ID, UploadID: e.UploadID, Duplicate: o.Duplicate, Durable: o.Durable}
}

// body returns the JSON. Nothing in it needs to be escaped, and encoding/json would take more
// time for it than the parser does for the callback.
func (a *acceptance) body() []byte {
	body := make([]byte, 0, 192) // it has at most 156 bytes
	body = append(body, `{"status":"ok","event_id":"`...)
	body = append(body, a.EventID.String()...)
	body = append(body, `","upload_id":`...)
	if a.UploadID.Valid {
		body = append(body, '"')
		body = append(body, a.UploadID.UUID.String()...)
		body = append(body, '"')
	} else {
		body = append(body, "null"...)
	}
	body = append(body, `,"duplicate":`...)
	body = strconv.AppendBool(body, a.Duplicate)
	body = append(body, `,"durable":"`...)
	body = append(body, a.Durable...)
	return append(body, `"}`...)
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
		// Its beginning is of no use, but for a capture.
		seen.beginning, seen.request.Body = seen.request.Body, nil
	case admission.MethodNotAllowed:
		c.Header("Allow", http.MethodPost)
	case admission.Unavailable:
		c.Header("Retry-After", "1")
	}
	captured := s.cfg.Captures != nil && isCaptured(r, c.Request)
	if captured && seen.request.Body == nil {
		// Otherwise net/http would read the rest of the body and drop it before it answers.
		_ = http.NewResponseController(c.Writer).EnableFullDuplex() // HTTP/2 needs no such thing
	}
	answer(c, r.Code.Status(), r.Body())
	s.noteRefusal(seen, captured)
}

// jsonType is shared by all answers, and never changed.
var jsonType = []string{"application/json"}

// answer writes a JSON body with its Content-Length, without which OSS fails a callback.
func answer(c *gin.Context, status int, body []byte) {
	header := c.Writer.Header()
	header["Content-Type"] = jsonType
	header["Content-Length"] = []string{strconv.Itoa(len(body))}
	c.Status(status)
	_, _ = c.Writer.Write(body) // who does not read the answer does not get it
}
