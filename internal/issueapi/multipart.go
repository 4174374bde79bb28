package issueapi

import (
	"context"

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

// postMultipart issues one multipart upload. It checks everything before it asks OSS to
// initiate the upload.
func (s *Server) postMultipart(ctx context.Context, c *gin.Context, who *caller) (any, error) {
	r, grant, violations, err := s.apply(c.Request, who, inParts)
	if err != nil {
		return nil, err
	}
	request := issue.MultipartRequest{
		Object: object(grant), Expires: grant.Expires, Size: &grant.Size, Callback: callback(grant), APIKeyID: who.id,
	}
	if r.PartSize != nil {
		request.PartSize = *r.PartSize
	}
	if len(violations) > 0 {
		return nil, policyProblem(violations, request.Check(s.cfg.CallbackHosts, true))
	}
	for _, slots := range []chan struct{}{who.multiparts, s.multiparts} { // the key's first, so that it waits for itself
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		case <-ctx.Done():
			return nil, unavailable("too many multipart uploads are being issued; try again", ctx.Err())
		}
	}
	m, _, err := s.cfg.Issuer.IssueMultipart(ctx, request)
	eventOf(c).issued(m.ID, grant)
	return issuedMultipart{m, eventstore.StatusIssued}, err
}
