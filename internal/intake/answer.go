package intake

import (
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
	answer(c, r.Code.Status(), r.Body())
	s.noteRefusal(seen)
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
