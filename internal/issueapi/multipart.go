package issueapi

import (
	"context"
	"net/http"

	"github.com/gin-gonic/gin"

	"upcall/internal/eventstore"
	"upcall/internal/issue"
	"upcall/internal/manifest"
)

// An issuedMultipart is a manifest with the status of its row in the ledger.
type issuedMultipart struct {
	manifest.Multipart
	Status eventstore.Status `json:"status"`
}

func (s *Server) postMultipart(ctx context.Context, c *gin.Context, who *caller) (int, any, error) {
	r, err := readUpload(c.Request, true)
	if err != nil {
		return 0, nil, err
	}
	m, err := s.multipart(ctx, who, r, eventOf(c))
	return http.StatusCreated, issuedMultipart{m, eventstore.StatusIssued}, err
}

// multipart is the path of one upload in parts. Everything is checked before OSS is
// asked to begin it.
func (s *Server) multipart(ctx context.Context, who *caller, r uploadRequest, event *logEvent) (manifest.Multipart, error) {
	grant, violations, err := s.apply(who, r)
	if err != nil {
		return manifest.Multipart{}, err
	}
	request := issue.MultipartRequest{
		Object: object(grant), Expires: grant.Expires, Size: &grant.Size, Callback: callback(grant), APIKeyID: who.id,
	}
	if r.PartSize != nil {
		request.PartSize = *r.PartSize
	}
	if len(violations) > 0 {
		return manifest.Multipart{}, policyProblem(violations, request.Check(s.cfg.CallbackHosts, true))
	}
	select {
	case s.multiparts <- struct{}{}:
		defer func() { <-s.multiparts }()
	case <-ctx.Done():
		return manifest.Multipart{}, unavailable("too many multipart uploads are being issued; try again", ctx.Err())
	}
	m, _, err := s.cfg.Issuer.IssueMultipart(ctx, request)
	event.issued(m.ID, grant)
	if p := unissuable(err); p != nil {
		return manifest.Multipart{}, p
	}
	return m, err
}
