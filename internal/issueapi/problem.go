package issueapi

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"upcall/internal/callbackspec"
	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/fault"
	"upcall/internal/oss"
	"upcall/internal/policy"
)

// A kind of problem has a label, on which a program may branch.
type kind struct {
	label  string
	status int
	title  string
	rule   string // if there is only one
}

var (
	kindMalformed       = kind{"malformed", http.StatusBadRequest, "The request cannot be read", ""}
	kindUnauthenticated = kind{"unauthenticated", http.StatusUnauthorized, "A valid API key is needed", "api_key"}
	kindPolicy          = kind{"policy", http.StatusForbidden, "The policy of the API key does not allow this upload", ""}
	kindNotFound        = kind{"not-found", http.StatusNotFound, "Not found", "path"}
	kindMethod          = kind{"method-not-allowed", http.StatusMethodNotAllowed, "The method is not allowed here", "method"}
	kindTooLarge        = kind{"too-large", http.StatusRequestEntityTooLarge, "The request is too large", "body_size"}
	kindMediaType       = kind{"unsupported-media-type", http.StatusUnsupportedMediaType, "The request is not plain JSON", "media_type"}
	kindUnissuable      = kind{"unissuable", http.StatusUnprocessableEntity, "OSS would refuse this upload", ""}
	kindRate            = kind{"rate-limited", http.StatusTooManyRequests, "Too many requests with this API key", "rate"}
	kindOSS             = kind{"oss-refused", http.StatusBadGateway, "OSS did not start the upload", "oss"}
	kindUnavailable     = kind{"unavailable", http.StatusServiceUnavailable, "The upload cannot be issued or looked up now", "available"}
)

// Rules of requests, besides those of policies.
const (
	ruleJSON  = "json"  // the body as a whole
	ruleField = "field" // one of its fields
	ruleOSS   = "oss"   // a limit of OSS
)

// A problem says why a request is refused.
type problem struct {
	kind       kind
	errors     []policy.Violation // at least one
	retryAfter time.Duration
	cause      error // only for the log
}

// retrySeconds is the value of Retry-After, rounded up to whole seconds.
func (p *problem) retrySeconds() int { return int((p.retryAfter + time.Second - 1) / time.Second) }

func (p *problem) Unwrap() error { return p.cause }

// problemOf returns a problem of a kind that has one rule.
func problemOf(k kind, detail string) *problem {
	return &problem{kind: k, errors: []policy.Violation{{Rule: k.rule, Detail: detail}}}
}

// Error describes the first broken rule, and says how many more there are.
func (p *problem) Error() string {
	first := p.errors[0]
	detail := first.Detail
	if first.Field != "" {
		detail = first.Field + " " + detail
	}
	if n := len(p.errors) - 1; n > 0 {
		detail += fmt.Sprintf(" (and %d more)", n)
	}
	return detail
}

// rules names the broken rules for the log.
func (p *problem) rules() string {
	var names []string
	for _, b := range p.errors {
		names = append(names, b.Rule)
	}
	return strings.Join(names, ",")
}

// asProblem turns an error into a problem. An unknown error is our mistake: the answer is
// 503, and the log says why.
func asProblem(err error) *problem {
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	rules := ossRules(err)
	refused, byOSS := errors.AsType[*oss.ServiceError](err)
	switch {
	case len(rules) > 0:
		return &problem{kind: kindUnissuable, errors: rules}
	case errors.Is(err, eventstore.ErrNotFound):
		return noSuchUpload()
	case errors.Is(err, event.ErrUnavailable):
		return unavailable("the database did not answer in time; try again", err)
	case byOSS:
		p := problemOf(kindOSS, "OSS answered "+refused.Code+"; the issuer's log says more")
		p.cause = err
		return p
	}
	return unavailable("try again; the issuer's log says why", err)
}

func unavailable(detail string, cause error) *problem {
	p := problemOf(kindUnavailable, detail)
	p.cause, p.retryAfter = cause, time.Second
	return p
}

// noSuchUpload is the same for an upload that does not exist and for another key's upload:
// otherwise anyone with a key could learn which IDs exist.
func noSuchUpload() *problem {
	return &problem{kind: kindNotFound, errors: []policy.Violation{{
		Rule: "upload", Field: "upload_id", Detail: "is not an upload that was issued with this API key",
	}}}
}

// policyProblem joins the violations of the policy and the checks of OSS's own limits. If a
// field breaks both, it shows what the policy says, because the policy is narrower.
func policyProblem(violations []policy.Violation, checked error) *problem {
	p := &problem{kind: kindPolicy, errors: violations}
	said := make(map[string]bool)
	for _, v := range violations {
		said[v.Field] = true
		if v.Rule == policy.RuleKey || v.Rule == policy.RuleKeyTemplates {
			said["key"] = true // there is no key yet
		}
	}
	for _, b := range ossRules(checked) {
		if !said[b.Field] {
			p.errors = append(p.errors, b)
		}
	}
	return p
}

// ossRules returns the limits of OSS that the checks before signing found broken.
func ossRules(err error) []policy.Violation {
	var rules []policy.Violation
	for _, f := range fault.Of(err) {
		// Expired credentials are for the operator to fix, not for the caller.
		if f.Field != "" && !errors.Is(f, oss.ErrCredentials) {
			fix := f.Fix
			if errors.Is(f, oss.ErrContentLength) && f.Field == "content-length" {
				fix += ": POST /v1/uploads/multipart"
			}
			rules = append(rules, policy.Violation{Rule: ruleOSS, Field: requestField(f.Field), Detail: f.Problem + "; " + fix})
		}
	}
	return rules
}

// requestField returns the API's name for a field of the packages below.
func requestField(field string) string {
	if name, ok := strings.CutPrefix(field, callbackspec.VarPrefix); ok {
		return "vars." + name
	}
	return cmp.Or(requestFields[field], field)
}

// requestFields are the fields that have another name in the API than in the packages below.
var requestFields = map[string]string{
	"content-length": "size", "content-type": "content_type", "expires": "expires_in", "part-size": "part_size", "callback-var": "vars",
	"key-prefix": "key_prefix", "min-size": "min_size", "max-size": "max_size",
}

// refuse answers with a problem.
func refuse(c *gin.Context, p *problem) {
	event := eventOf(c)
	event.outcome, event.rules, event.err = p.kind.label, p.rules(), p.cause
	switch {
	case p.kind == kindUnauthenticated:
		c.Header("WWW-Authenticate", `Bearer realm="upcall"`)
	case p.kind == kindTooLarge:
		c.Header("Connection", "close") // the rest of the message is not read
	case p.retryAfter > 0:
		c.Header("Retry-After", strconv.Itoa(p.retrySeconds()))
	}
	writeJSON(c, p.kind.status, "application/problem+json", struct {
		Type   string             `json:"type"`
		Title  string             `json:"title"`
		Status int                `json:"status"`
		Detail string             `json:"detail"`
		Rule   string             `json:"rule"`
		Field  string             `json:"field,omitempty"`
		Errors []policy.Violation `json:"errors"`
	}{"urn:upcall:problem:" + p.kind.label, p.kind.title, p.kind.status, p.Error(), p.errors[0].Rule, p.errors[0].Field, p.errors})
}
