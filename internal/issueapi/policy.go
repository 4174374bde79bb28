package issueapi

import (
	"context"

	"github.com/gin-gonic/gin"
)

// A policyView is a policy as its callers see it.
type policyView struct {
	Name             string   `json:"name"`
	Buckets          []string `json:"buckets"`
	KeyPrefixes      []string `json:"key_prefixes"`
	KeyTemplates     []string `json:"key_templates"`
	ContentTypes     []string `json:"content_types"`
	MaxSize          int64    `json:"max_size"`
	MaxExpirySeconds int64    `json:"max_expiry_seconds"`
	RequiredVars     []string `json:"required_vars"`
	AllowedVars      []string `json:"allowed_vars"`
}

// getPolicy shows a caller its policy, but for the callback URLs, which are the operator's.
func (s *Server) getPolicy(_ context.Context, _ *gin.Context, who *caller) (any, error) {
	p, err := s.policyOf(who)
	if err != nil {
		return nil, err
	}
	list := func(values []string) []string { return append([]string{}, values...) } // never null
	return policyView{
		Name: p.Name, Buckets: list(p.Buckets), KeyPrefixes: list(p.Prefixes(who.id, s.cfg.Now())), KeyTemplates: list(p.KeyTemplates),
		ContentTypes: list(p.ContentTypes), MaxSize: p.MaxSize, MaxExpirySeconds: int64(p.MaxExpiry.Seconds()),
		RequiredVars: list(p.RequiredVars), AllowedVars: list(p.AllowedVars),
	}, nil
}
