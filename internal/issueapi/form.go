package issueapi

import (
	"context"

	"github.com/gin-gonic/gin"

	"upcall/internal/eventstore"
	"upcall/internal/issue"
	"upcall/internal/manifest"
)

// An issuedForm is a form with the status of its row in the ledger.
type issuedForm struct {
	manifest.Form
	Status eventstore.Status `json:"status"`
}

// postForm issues one form.
func (s *Server) postForm(ctx context.Context, c *gin.Context, who *caller) (any, error) {
	_, grant, violations, err := s.apply(c.Request, who, asForm)
	if err != nil {
		return nil, err
	}
	request := issue.FormRequest{
		Object: object(grant), ByPrefix: grant.ByPrefix, Expires: grant.Expires, MinSize: grant.MinSize, MaxSize: grant.MaxSize,
		Callback: callback(grant), APIKeyID: who.id,
	}
	if len(violations) > 0 {
		return nil, policyProblem(violations, request.Check(s.cfg.CallbackHosts, true))
	}
	issued, _, err := s.cfg.Issuer.IssueForm(ctx, request)
	eventOf(c).issued(issued.ID, grant)
	return issuedForm{issued, eventstore.StatusIssued}, err
}
