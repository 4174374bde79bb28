// Package policy says what an API key may have issued: a YAML file of named policies,
// and the check of one request against one of them.
//
// A file looks like this; every field but the last two is required, so that nothing is
// allowed by being forgotten:
//
//	policies:
//	  photos:
//	    buckets: [demo]
//	    # Keys that the application chooses. "*" alone allows any.
//	    key_prefixes: ["photos/${apikey.id}/"]
//	    # Keys that are made here; the first is used where a request gives no key. One of
//	    # key_prefixes and key_templates is enough.
//	    key_templates: ["photos/${apikey.id}/${date}/${uuid}-${filename}"]
//	    content_types: [image/jpeg, image/png]    # or image/*, or */* for any and none
//	    max_size: 20MiB
//	    max_expiry: 1h
//	    callback_urls: ["https://uploads.example.com/oss/callback"]
//	    required_vars: [uid]
//	    allowed_vars: [album]
//
// A request that is refused gets a [Violation] for each rule that it breaks, all at once.
//
// The issuer's programs and its HTTP side import this package. It imports the contract
// of the callbacks and no other package of ours.
package policy

import (
	"fmt"
	"maps"
	"mime"
	"slices"
	"strings"
	"time"

	"upcall/internal/fault"
)

// A Rule is what a request breaks: a field of the policy, or RuleKey.
type Rule string

const (
	RuleBuckets      Rule = "buckets"
	RuleKeyPrefixes  Rule = "key_prefixes"
	RuleKeyTemplates Rule = "key_templates"
	RuleContentTypes Rule = "content_types"
	RuleMaxSize      Rule = "max_size"
	RuleMaxExpiry    Rule = "max_expiry"
	RuleRequiredVars Rule = "required_vars"
	RuleAllowedVars  Rule = "allowed_vars"
	// RuleKey is no field: it is what every key must be like, whatever the policy, and
	// that a request says in one way which key it wants.
	RuleKey Rule = "key"
)

// DefaultExpiry is what a request gets that asks for no expiry, if its policy allows it.
const DefaultExpiry = time.Hour

// A Policy says what may be issued. [Parse] makes it.
type Policy struct {
	Name         string
	Buckets      []string // the first is used where a request names none
	KeyPrefixes  []Template
	KeyTemplates []Template
	ContentTypes []string // lower case; type/subtype, type/* or */*
	MaxSize      int64    // bytes
	MaxExpiry    time.Duration
	CallbackURLs []string // 1 to 5: what OSS calls after each upload, tried in order
	RequiredVars []string // without "x:", each with a value that is not empty
	AllowedVars  []string
}

// A Request is what an application asks for. Empty texts and nil stand for what it
// leaves out.
type Request struct {
	APIKeyID    string
	Bucket      string
	Key         string
	KeyTemplate string
	Filename    string // what ${filename} is made from; used for nothing else
	ContentType string
	Size        *int64         // bytes
	Expires     *time.Duration // of the URL
	Vars        map[string]string
}

// A Grant is what a request gets.
type Grant struct {
	Bucket       string
	Key          string
	ContentType  string
	Size         int64
	Expires      time.Duration
	CallbackURLs []string
	Vars         map[string]string
}

// A Violation is one broken rule.
type Violation struct {
	Rule   Rule
	Field  string // of the request, as in "vars.uid"
	Detail string // what is wrong with the field and what would not be; one line
}

// Apply checks r and returns what it gets, or all rules that it breaks. With violations
// the grant holds what was asked for, as far as it can be told, for further checks.
func (p *Policy) Apply(r Request, now time.Time) (Grant, []Violation) {
	c := check{policy: p, request: r, now: now}
	grant := Grant{
		Bucket:       c.bucket(),
		Key:          c.key(),
		ContentType:  c.contentType(),
		Size:         c.size(),
		Expires:      c.expires(),
		CallbackURLs: p.CallbackURLs,
		Vars:         r.Vars,
	}
	c.vars()
	return grant, c.violations
}

// A check is one request before one policy.
type check struct {
	policy     *Policy
	request    Request
	now        time.Time
	violations []Violation
}

func (c *check) violate(rule Rule, field, detail string, args ...any) {
	c.violations = append(c.violations, Violation{rule, field, fmt.Sprintf(detail, args...)})
}

// bucket stops a key from writing where another application keeps its objects.
func (c *check) bucket() string {
	bucket := c.request.Bucket
	if bucket == "" {
		return c.policy.Buckets[0]
	}
	if !slices.Contains(c.policy.Buckets, bucket) {
		c.violate(RuleBuckets, "bucket", "%s is not among the policy's: %s", fault.Quote(bucket), strings.Join(c.policy.Buckets, ", "))
	}
	return bucket
}

// contentType stops uploads that a browser would run as a page of the bucket's domain.
// What is allowed is then signed, so that the uploader can send no other.
func (c *check) contentType() string {
	given := c.request.ContentType
	anything := slices.Contains(c.policy.ContentTypes, anyType)
	if given == "" {
		if !anything {
			c.violate(RuleContentTypes, "content_type", "is missing; the policy allows %s", strings.Join(c.policy.ContentTypes, ", "))
		}
		return ""
	}
	kind, _, err := mime.ParseMediaType(given) // in lower case, without parameters
	group, _, ok := strings.Cut(kind, "/")
	switch {
	case err != nil || !ok || strings.Contains(kind, "*"): // * is a letter like others to RFC 2045
		c.violate(RuleContentTypes, "content_type", "%s is no media type; give one such as image/jpeg", fault.Quote(given))
	case !anything && !slices.Contains(c.policy.ContentTypes, kind) && !slices.Contains(c.policy.ContentTypes, group+"/*"):
		c.violate(RuleContentTypes, "content_type", "%s is not among the policy's: %s",
			fault.Quote(given), strings.Join(c.policy.ContentTypes, ", "))
	}
	return given
}

// size needs the exact size: it is signed as the Content-Length, and nothing else holds
// an uploader to a limit.
func (c *check) size() int64 {
	size := c.request.Size
	if size == nil {
		c.violate(RuleMaxSize, "size", "is missing; give the exact size in bytes, at most %d", c.policy.MaxSize)
		return 0
	}
	switch {
	case *size < 0:
		c.violate(RuleMaxSize, "size", "%d is no size; give the exact size in bytes, at most %d", *size, c.policy.MaxSize)
	case *size > c.policy.MaxSize:
		c.violate(RuleMaxSize, "size", "%d is over the policy's %d bytes", *size, c.policy.MaxSize)
	}
	return *size
}

// expires bounds for how long a URL that leaked can be used.
func (c *check) expires() time.Duration {
	if c.request.Expires == nil {
		return min(DefaultExpiry, c.policy.MaxExpiry)
	}
	expires := *c.request.Expires
	if expires > c.policy.MaxExpiry {
		c.violate(RuleMaxExpiry, "expires_in", "%s is over the policy's %s", expires, c.policy.MaxExpiry)
	}
	return expires
}

// vars lets nothing into the recorded event that the policy does not name.
func (c *check) vars() {
	for _, name := range c.policy.RequiredVars {
		if c.request.Vars[name] == "" {
			c.violate(RuleRequiredVars, "vars."+name, "is missing or empty; the policy requires it")
		}
	}
	if len(c.request.Vars) == 0 {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(c.request.Vars)) {
		if !slices.Contains(c.policy.RequiredVars, name) && !slices.Contains(c.policy.AllowedVars, name) {
			c.violate(RuleAllowedVars, "vars."+fault.Short(name), "is not among the policy's variables: %s",
				orNone(slices.Concat(c.policy.RequiredVars, c.policy.AllowedVars)))
		}
	}
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "there are none"
	}
	return strings.Join(names, ", ")
}
