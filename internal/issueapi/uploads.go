package issueapi

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/issue"
	"upcall/internal/manifest"
	"upcall/internal/oss"
	"upcall/internal/policy"
)

const (
	// deadline is how long a request may take, whatever happens.
	deadline = 5 * time.Second
	// multipartDeadline also covers a call to OSS and thousands of signatures.
	multipartDeadline = 20 * time.Second
)

// authenticated returns a handler for callers with a valid API key. It answers with status
// and the document that handle returns, or with the error as a problem.
func (s *Server) authenticated(status int, handle func(context.Context, *gin.Context, *caller) (any, error)) gin.HandlerFunc {
	return func(c *gin.Context) {
		limit := deadline
		if c.FullPath() == "/v1/uploads/multipart" {
			limit = multipartDeadline
		}
		ctx, cancel := context.WithTimeout(c.Request.Context(), limit)
		defer cancel()
		who, err := s.keys.check(ctx, c.Request.Header)
		if err == nil {
			eventOf(c).keyID = who.id
			err = s.keys.limit(who)
		}
		var answer any
		if err == nil {
			answer, err = handle(ctx, c, who)
		}
		if err != nil {
			refuse(c, asProblem(err))
			return
		}
		eventOf(c).outcome = outcomeOK
		writeJSON(c, status, "application/json", answer)
	}
}

// An issuedUpload is an upload with the status of its row in the ledger.
type issuedUpload struct {
	manifest.Upload
	Status eventstore.Status `json:"status"`
}

// postUpload issues one upload.
func (s *Server) postUpload(ctx context.Context, c *gin.Context, who *caller) (any, error) {
	_, grant, violations, err := s.apply(c.Request, who, atOnce)
	if err != nil {
		return nil, err
	}
	request := issue.Request{
		Object: object(grant), Expires: grant.Expires, ContentLength: &grant.Size, Callback: callback(grant), APIKeyID: who.id,
	}
	if len(violations) > 0 {
		return nil, policyProblem(violations, request.Check(s.cfg.CallbackHosts, true))
	}
	upload, _, err := s.cfg.Issuer.Issue(ctx, request)
	eventOf(c).issued(upload.ID, grant)
	return issuedUpload{upload, eventstore.StatusIssued}, err
}

// apply reads a request and checks it against the policy of the key.
func (s *Server) apply(request *http.Request, who *caller, of form) (uploadRequest, policy.Grant, []policy.Violation, error) {
	body, err := readBody(request)
	if err != nil {
		return uploadRequest{}, policy.Grant{}, nil, err
	}
	r, err := decodeUpload(body, of)
	if err != nil {
		return r, policy.Grant{}, nil, err
	}
	p, err := s.policyOf(who)
	if err != nil {
		return r, policy.Grant{}, nil, err
	}
	r.APIKeyID = who.id
	grant, violations := p.Apply(r.Request, s.cfg.Now())
	return r, grant, violations, nil
}

// policyOf returns the policy of a caller. It may have been removed from the file; without one, nothing is allowed.
func (s *Server) policyOf(who *caller) (*policy.Policy, error) {
	p := s.policies.Load().Policy(who.policy)
	if p == nil {
		detail := fmt.Sprintf("the policy %q of this API key is not in the issuer's policy file", who.policy)
		return nil, &problem{kind: kindPolicy, errors: []policy.Violation{{Rule: "policy", Detail: detail}}}
	}
	return p, nil
}

func object(g policy.Grant) oss.Object {
	return oss.Object{Bucket: g.Bucket, Key: g.Key, ContentType: g.ContentType}
}

func callback(g policy.Grant) *issue.CallbackSpec {
	return &issue.CallbackSpec{URLs: g.CallbackURLs, Vars: g.Vars}
}

func (s *Server) getUpload(ctx context.Context, c *gin.Context, who *caller) (any, error) {
	found, err := s.own(ctx, c, who)
	return newUploadState(found), err
}

// deleteUpload revokes an upload. OSS still accepts it until its URL expires, but its
// callback is no longer recorded.
func (s *Server) deleteUpload(ctx context.Context, c *gin.Context, who *caller) (any, error) {
	found, err := s.own(ctx, c, who)
	if err != nil {
		return nil, err
	}
	if err := s.cfg.Ledger.Revoke(ctx, found.ID); err != nil {
		return nil, err
	}
	found, err = s.cfg.Ledger.Get(ctx, found.ID)
	return newUploadState(found), err
}

// own returns the upload in the path, if it was issued with the caller's key.
func (s *Server) own(ctx context.Context, c *gin.Context, who *caller) (eventstore.IssuedStatus, error) {
	text := c.Param("id")
	id, err := uuid.Parse(text)
	if err != nil || id.String() != text { // uuid also reads three other spellings
		return eventstore.IssuedStatus{}, noSuchUpload()
	}
	eventOf(c).uploadID = text
	found, err := s.cfg.Ledger.Get(ctx, id)
	if err != nil {
		return eventstore.IssuedStatus{}, err
	}
	// IDs are not secret: they contain the time, and every uploader sees theirs. Only this
	// check keeps an application from reading and revoking the uploads of another.
	if found.APIKeyID != who.id {
		return eventstore.IssuedStatus{}, noSuchUpload()
	}
	return found, nil
}

// An uploadState is the status of an upload, as the API shows it.
type uploadState struct {
	UploadID  uuid.UUID         `json:"upload_id"`
	Status    eventstore.Status `json:"status"`
	Bucket    string            `json:"bucket"`
	Key       string            `json:"key"`
	ByPrefix  bool              `json:"by_prefix"`
	IssuedAt  time.Time         `json:"issued_at"`
	ExpiresAt time.Time         `json:"expires_at"`
	RevokedAt *time.Time        `json:"revoked_at"`
	Event     *uploadEvent      `json:"event"`
}

// An uploadEvent is the recorded callback: an event's JSON without upload_id, which the
// upload itself has.
type uploadEvent event.Event

// MarshalJSON implements json.Marshaler.
func (e *uploadEvent) MarshalJSON() ([]byte, error) {
	text := []byte{'{'}
	for _, c := range event.Columns {
		if c.Name == "upload_id" {
			continue
		}
		if len(text) > 1 {
			text = append(text, ',')
		}
		var err error
		if text, err = c.AppendMember(text, (*event.Event)(e)); err != nil {
			return nil, err
		}
	}
	return append(text, '}'), nil
}

func newUploadState(s eventstore.IssuedStatus) uploadState {
	state := uploadState{
		UploadID: s.ID, Status: s.Status, Bucket: s.Bucket, Key: s.Object, ByPrefix: s.ByPrefix, IssuedAt: s.IssuedAt.UTC(),
		ExpiresAt: s.ExpiresAt.UTC(),
		Event:     (*uploadEvent)(s.Event),
	}
	if !s.RevokedAt.IsZero() {
		state.RevokedAt = new(s.RevokedAt.UTC())
	}
	return state
}
