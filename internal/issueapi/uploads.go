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
	// deadline is the time in which a request is answered, whatever happens.
	deadline = 5 * time.Second
	// multipartDeadline is the same where OSS is asked, and thousands of URLs signed.
	multipartDeadline = 20 * time.Second
)

// authenticated makes a handler of one that answers a caller with a status and a
// document, or with an error.
func (s *Server) authenticated(handle func(ctx context.Context, c *gin.Context, who *caller) (int, any, error)) gin.HandlerFunc {
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
		var status int
		var answer any
		if err == nil {
			status, answer, err = handle(ctx, c, who)
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

func (s *Server) postUpload(ctx context.Context, c *gin.Context, who *caller) (int, any, error) {
	r, err := readUpload(c.Request, false)
	if err != nil {
		return 0, nil, err
	}
	upload, err := s.upload(ctx, who, r, eventOf(c))
	return http.StatusCreated, issuedUpload{upload, eventstore.StatusIssued}, err
}

// upload is the path of one upload.
func (s *Server) upload(ctx context.Context, who *caller, r uploadRequest, event *logEvent) (manifest.Upload, error) {
	grant, violations, err := s.apply(who, r)
	if err != nil {
		return manifest.Upload{}, err
	}
	request := issue.Request{
		Object: object(grant), Expires: grant.Expires, ContentLength: &grant.Size, Callback: callback(grant), APIKeyID: who.id,
	}
	if len(violations) > 0 {
		return manifest.Upload{}, policyProblem(violations, request.Check(s.cfg.CallbackHosts, true))
	}
	upload, _, err := s.cfg.Issuer.Issue(ctx, request)
	event.issued(upload.ID, grant)
	if p := unissuable(err); p != nil {
		return manifest.Upload{}, p
	}
	return upload, err
}

// apply checks the request against the policy of the key.
func (s *Server) apply(who *caller, r uploadRequest) (policy.Grant, []policy.Violation, error) {
	p := s.cfg.Policies.Policy(who.policy)
	if p == nil {
		// Closed, and not open: the policy may have been taken out of the file.
		detail := fmt.Sprintf("the policy %q of this API key is not in the issuer's policy file", who.policy)
		return policy.Grant{}, nil, &problem{kind: kindPolicy, errors: []broken{{"policy", "", detail}}}
	}
	r.APIKeyID = who.id
	grant, violations := p.Apply(r.Request, s.cfg.Now())
	return grant, violations, nil
}

func object(g policy.Grant) oss.Object {
	return oss.Object{Bucket: g.Bucket, Key: g.Key, ContentType: g.ContentType}
}

func callback(g policy.Grant) *issue.CallbackSpec {
	return &issue.CallbackSpec{URLs: g.CallbackURLs, Vars: g.Vars}
}

func (s *Server) getUpload(ctx context.Context, c *gin.Context, who *caller) (int, any, error) {
	found, err := s.own(ctx, c, who)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, newUploadState(found), nil
}

// deleteUpload revokes an upload. OSS still accepts it until its URL expires; what
// ends is that its callback is recorded.
func (s *Server) deleteUpload(ctx context.Context, c *gin.Context, who *caller) (int, any, error) {
	found, err := s.own(ctx, c, who)
	if err != nil {
		return 0, nil, err
	}
	if err := s.cfg.Ledger.Revoke(ctx, found.ID); err != nil {
		return 0, nil, err
	}
	if found, err = s.cfg.Ledger.Get(ctx, found.ID); err != nil {
		return 0, nil, err
	}
	return http.StatusOK, newUploadState(found), nil
}

// own returns the upload in the path, if it was issued with the caller's key.
func (s *Server) own(ctx context.Context, c *gin.Context, who *caller) (eventstore.IssuedStatus, error) {
	text := c.Param("id")
	id, err := uuid.Parse(text)
	if err != nil || id.String() != text { // one spelling: uuid reads four
		return eventstore.IssuedStatus{}, noSuchUpload()
	}
	eventOf(c).uploadID = id
	found, err := s.cfg.Ledger.Get(ctx, id)
	if err != nil {
		return eventstore.IssuedStatus{}, err
	}
	// Ids tell when they were made and are no secret, because every uploader sees theirs: only
	// this keeps one application from reading and revoking what is another's.
	if found.APIKeyID != who.id {
		return eventstore.IssuedStatus{}, noSuchUpload()
	}
	return found, nil
}

// An uploadState is what became of an upload.
type uploadState struct {
	UploadID  uuid.UUID         `json:"upload_id"`
	Status    eventstore.Status `json:"status"`
	Bucket    string            `json:"bucket"`
	Key       string            `json:"key"`
	IssuedAt  time.Time         `json:"issued_at"`
	ExpiresAt time.Time         `json:"expires_at"`
	RevokedAt *time.Time        `json:"revoked_at"`
	Event     *uploadEvent      `json:"event"`
}

// An uploadEvent is the recorded callback, in an event's JSON but for what is known here
// already.
type uploadEvent event.Event

// MarshalJSON implements json.Marshaler.
func (e *uploadEvent) MarshalJSON() ([]byte, error) {
	text := []byte{'{'}
	for _, c := range event.Columns {
		if c.Name == "upload_id" { // a member of the upload
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
		UploadID: s.ID, Status: s.Status, Bucket: s.Bucket, Key: s.Object, IssuedAt: s.IssuedAt.UTC(), ExpiresAt: s.ExpiresAt.UTC(),
	}
	if !s.RevokedAt.IsZero() {
		state.RevokedAt = new(s.RevokedAt.UTC())
	}
	state.Event = (*uploadEvent)(s.Event)
	return state
}
