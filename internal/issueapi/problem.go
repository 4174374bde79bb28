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

// A kind of problem is what a program may branch on, by its label.
type kind struct {
	label  string
	status int
	title  string
	rule   string // where there is only one
}

var (
	kindMalformed       = kind{"malformed", http.StatusBadRequest, "The request cannot be read", ""}
	kindUnauthenticated = kind{"unauthenticated", http.StatusUnauthorized, "A valid API key is needed", "api_key"}
	kindPolicy          = kind{"policy", http.StatusForbidden, "The policy of the API key does not allow this upload", ""}
	kindNotFound        = kind{"not-found", http.StatusNotFound, "Not found", "path"}
	kindMethod          = kind{"method-not-allowed", http.StatusMethodNotAllowed, "The method is not allowed here", "method"}
	kindTooLarge        = kind{"too-large", http.StatusRequestEntityTooLarge, "The request is too large", "body_size"}
	kindMediaType       = kind{"unsupported-media-type", http.StatusUnsupportedMediaType, "The request is not plain JSON", "media_type"}
	kindUnissuable      = kind{"unissuable", http.StatusUnprocessableEntity, "OSS would not take this upload", ""}
	kindRate            = kind{"rate-limited", http.StatusTooManyRequests, "Too many requests with this API key", "rate"}
	kindOSS             = kind{"oss-refused", http.StatusBadGateway, "OSS did not begin the upload", "oss"}
	kindUnavailable     = kind{"unavailable", http.StatusServiceUnavailable, "The upload cannot be issued or looked up now", "available"}
)

// Rules of requests, besides those of policies.
const (
	ruleJSON  = "json"  // the body as a whole
	ruleField = "field" // one of its fields
	ruleOSS   = "oss"   // a limit of OSS
)

// A broken rule, as the answer shows it.
type broken struct {
	Rule   string `json:"rule"`
	Field  string `json:"field,omitempty"` // of the request; "" is the request as a whole
	Detail string `json:"detail"`
}

// A problem is why a request is refused: what the caller is told, in the form of
// RFC 9457, and the cause for the log alone.
type problem struct {
	kind       kind
	errors     []broken // at least one
	retryAfter time.Duration
	cause      error
}

// retrySeconds is what Retry-After says, in seconds begun.
func (p *problem) retrySeconds() int { return int((p.retryAfter + time.Second - 1) / time.Second) }

func (p *problem) Error() string { return p.detail() }
func (p *problem) Unwrap() error { return p.cause }

// problemOf returns a problem of a kind that has one rule.
func problemOf(k kind, detail string) *problem {
	return &problem{kind: k, errors: []broken{{Rule: k.rule, Detail: detail}}}
}

func malformed(rule, field, detail string, args ...any) *problem {
	return &problem{kind: kindMalformed, errors: []broken{{rule, field, fmt.Sprintf(detail, args...)}}}
}

// detail is about the first broken rule, and says how many there are more.
func (p *problem) detail() string {
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

// asProblem gives an error its place. What nothing is known of is ours to answer for:
// 503, and the log says why.
func asProblem(err error) *problem {
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	refused, byOSS := errors.AsType[*oss.ServiceError](err)
	switch {
	case errors.Is(err, eventstore.ErrNotFound):
		return noSuchUpload()
	case errors.Is(err, event.ErrUnavailable):
		return unavailable("the database could not be asked in time; try again", err)
	case byOSS:
		p := problemOf(kindOSS, "OSS answered "+refused.Code+"; the issuer's log has the rest")
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

// noSuchUpload is one answer for what never was and for what is another key's: else
// a holder of any key could tell which ids exist.
func noSuchUpload() *problem {
	return &problem{kind: kindNotFound, errors: []broken{{"upload", "upload_id", "names no upload that was issued with this API key"}}}
}

// policyProblem joins what the policy and what OSS say of a request. Where both speak of
// a field, the policy counts: it is the narrower.
func policyProblem(violations []policy.Violation, checked error) *problem {
	p := &problem{kind: kindPolicy}
	said := make(map[string]bool)
	for _, v := range violations {
		said[v.Field] = true
		if v.Rule == policy.RuleKey || v.Rule == policy.RuleKeyTemplates {
			said["key"] = true // there is none yet
		}
		p.errors = append(p.errors, broken{string(v.Rule), v.Field, v.Detail})
	}
	for _, b := range ossRules(checked) {
		if !said[b.Field] {
			p.errors = append(p.errors, b)
		}
	}
	return p
}

// unissuable is a request that the policy allows and OSS would not take, or nil if err
// is about something else.
func unissuable(err error) *problem {
	if rules := ossRules(err); len(rules) > 0 {
		return &problem{kind: kindUnissuable, errors: rules}
	}
	return nil
}

// ossRules returns what the checks that come before signing say, field by field.
func ossRules(err error) []broken {
	var rules []broken
	for _, f := range fault.Of(err) {
		// Credentials that have expired are the operator's business, not the caller's.
		if f.Field != "" && !errors.Is(f, oss.ErrCredentials) {
			rules = append(rules, broken{ruleOSS, requestField(f.Field), f.Problem + "; " + f.Fix})
		}
	}
	return rules
}

// requestField is what the API calls a field of the packages below.
func requestField(field string) string {
	if name, ok := strings.CutPrefix(field, callbackspec.VarPrefix); ok {
		return "vars." + name
	}
	return cmp.Or(requestFields[field], field)
}

// requestFields are the fields that the API calls otherwise than the packages below.
var requestFields = map[string]string{
	"content-length": "size", "content-type": "content_type", "expires": "expires_in", "part-size": "part_size", "callback-var": "vars",
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
		Type   string   `json:"type"`
		Title  string   `json:"title"`
		Status int      `json:"status"`
		Detail string   `json:"detail"`
		Rule   string   `json:"rule"`
		Field  string   `json:"field,omitempty"`
		Errors []broken `json:"errors"`
	}{"urn:upcall:problem:" + p.kind.label, p.kind.title, p.kind.status, p.detail(), p.errors[0].Rule, p.errors[0].Field, p.errors})
}
