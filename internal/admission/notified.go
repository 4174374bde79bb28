package admission

import (
	"encoding/json"
	"strings"

	"github.com/google/uuid"

	"upcall/internal/callbackspec"
	"upcall/internal/event"
	"upcall/internal/uploadtoken"
)

// AdmitNotified checks what a notification of OSS tells of an upload, as [Policy.Admit] does with
// a callback. It sets the upload ID, if the upload token is among vars, and the variables; the
// rest of e must be set. vars are by name with x:.
//
// Without a token nothing says that the upload is one of ours, nor that the variables are those
// that were issued: the ledger must, and so the event gets none, unless uploads need no
// token. The token must have been valid at the time of the upload, which is e.ReceivedAt.
func (p *Policy) AdmitNotified(e *event.Event, vars callbackspec.Vars) *Refusal {
	c := &e.Callback
	if _, refusal := p.checkBucket(c.Bucket, ""); refusal != nil {
		return refusal
	}
	token, others := vars[callbackspec.TokenVar], make(callbackspec.Vars, len(vars))
	for name, value := range vars {
		if name != callbackspec.TokenVar {
			others[name] = value
		}
	}
	switch {
	case p.cfg.TokenPolicy == TokenOff, token == "" && p.cfg.TokenPolicy == TokenOptional:
	case token == "":
		return nil
	default:
		claims, err := p.cfg.Tokens.Check(token, uploadtoken.Callback{
			Bucket: c.Bucket, Object: c.Object, MimeType: c.MimeType, Size: c.Size, Fields: others, Notified: true,
		}, e.ReceivedAt)
		e.UploadID = uuid.NullUUID{UUID: claims.UploadID, Valid: claims.Version > 0}
		if refusal := badToken(claims, err); refusal != nil || claims.Unproven {
			return refusal
		}
	}
	if len(others) > 0 {
		c.Vars = make(map[string]json.RawMessage, len(others))
	}
	for name, value := range others {
		c.Vars[strings.TrimPrefix(name, callbackspec.VarPrefix)] = callbackspec.AppendQuoted(nil, value)
	}
	return nil
}
