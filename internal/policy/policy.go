// Package policy says what each API key may request: it reads a YAML file of named
// policies, and checks a request against one of them.
//
// A file looks like this. Every field but the last two is required, so that forgetting one
// allows nothing:
//
//	policies:
//	  photos:
//	    buckets: [demo]
//	    # Keys that the application chooses. "*" alone allows any.
//	    key_prefixes: ["photos/${apikey.id}/"]
//	    # Keys that the issuer makes; a request without a key uses the first. Either
//	    # key_prefixes or key_templates is enough.
//	    key_templates: ["photos/${apikey.id}/${date}/${uuid}-${filename}"]
//	    content_types: [image/jpeg, image/png]    # or image/*, without types that run scripts, such as SVG; */* for any and none
//	    max_size: 20MiB
//	    max_expiry: 1h
//	    callback_urls: ["https://uploads.example.com/oss/callback"]
//	    required_vars: [uid]
//	    allowed_vars: [album]
//
// A refused request gets a [Violation] for each rule that it breaks, all at once.
package policy

import (
	"fmt"
	"maps"
	"mime"
	"slices"
	"strings"
	"time"

	"upcall/internal/fault"
	"upcall/internal/ossrule"
)

// The rules that a request may break: fields of the policy, and RuleKey.
const (
	RuleBuckets      = "buckets"
	RuleKeyPrefixes  = "key_prefixes"
	RuleKeyTemplates = "key_templates"
	RuleContentTypes = "content_types"
	RuleMaxSize      = "max_size"
	RuleMaxExpiry    = "max_expiry"
	RuleRequiredVars = "required_vars"
	RuleAllowedVars  = "allowed_vars"
	// RuleKey is not a field: it says what every key must look like, whatever the policy,
	// and that a request asks for its key in one way only.
	RuleKey = "key"
)

// defaultExpiry applies to a request without an expiry, if its policy allows that long.
const defaultExpiry = time.Hour

// A Policy says what may be issued. [Parse] returns it.
type Policy struct {
	Name         string
	Buckets      []string // a request that names none gets the first
	KeyPrefixes  []string // templates that end with a slash, or "*"
	KeyTemplates []string
	ContentTypes []string // lower case; type/subtype, type/* or */*
	MaxSize      int64    // bytes
	MaxExpiry    time.Duration
	CallbackURLs []string // 1 to 5: what OSS calls after each upload, tried in order
	RequiredVars []string // without "x:", each with a value that is not empty
	AllowedVars  []string
}

// A Request is what an application asks for. Empty strings and nil stand for what it
// leaves out.
type Request struct {
	APIKeyID    string
	Bucket      string
	Key         string
	KeyTemplate string
	Filename    string // only used for ${filename}
	ContentType string
	Size        *int64         // bytes
	Expires     *time.Duration // of the URL
	Vars        map[string]string

	// Form asks for a form instead of a URL. It has no Size, but limits, and the key may be left to the uploader.
	Form             bool
	KeyPrefix        string // of all keys, instead of Key and KeyTemplate
	MinSize, MaxSize *int64 // bytes; nil is 0, and the policy's
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

	// Of forms:
	ByPrefix         bool // Key is only the beginning
	MinSize, MaxSize int64
}

// A Violation is one broken rule, as the issuer's API shows it.
type Violation struct {
	Rule   string `json:"rule"`
	Field  string `json:"field,omitempty"` // of the request, as in "vars.uid"; "" is the request as a whole
	Detail string `json:"detail"`          // what is wrong with the field and what would be right; one line
}

// Apply checks r and returns what it gets, or all rules that it breaks. With violations,
// the grant holds as much of the request as is known, for further checks.
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
		ByPrefix:     r.KeyPrefix != "",
	}
	grant.MinSize, grant.MaxSize = c.sizes()
	c.vars()
	return grant, c.violations
}

// A check checks one request against one policy.
type check struct {
	policy     *Policy
	request    Request
	now        time.Time
	violations []Violation
}

func (c *check) violate(rule, field, detail string, args ...any) {
	c.violations = append(c.violations, Violation{rule, field, fmt.Sprintf(detail, args...)})
}

// bucket stops an application from writing to the bucket of another.
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

// active reports whether a browser may run a document of this type as a page. XML may hold
// XHTML or SVG, and so scripts, whatever its type.
func active(kind string) bool {
	return strings.HasSuffix(kind, "+xml") || strings.HasSuffix(kind, "/xml") ||
		slices.Contains([]string{"text/html", "text/xsl", "text/javascript", "text/ecmascript", "application/javascript",
			"application/x-javascript", "application/ecmascript", "multipart/related", "multipart/x-mixed-replace"}, kind)
}

// contentType stops uploads that a browser would run as a page of the bucket's domain.
// The type is then signed, so the uploader cannot send another.
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
	case err != nil || !ok || strings.Contains(kind, "*"): // RFC 2045 allows * in names
		c.violate(RuleContentTypes, "content_type", "%s is not a media type; give one such as image/jpeg", fault.Quote(given))
	case anything || slices.Contains(c.policy.ContentTypes, kind):
	case slices.Contains(c.policy.ContentTypes, group+"/*") && active(kind):
		c.violate(RuleContentTypes, "content_type", "%s can run scripts in a browser, so %s/* does not allow it; the policy must name it",
			fault.Quote(given), group)
	case !slices.Contains(c.policy.ContentTypes, group+"/*"):
		c.violate(RuleContentTypes, "content_type", "%s is not among the policy's: %s",
			fault.Quote(given), strings.Join(c.policy.ContentTypes, ", "))
	}
	return given
}

// size demands the exact size: it is signed as the Content-Length, and nothing else limits
// what an uploader sends.
func (c *check) size() int64 {
	size := c.request.Size
	if c.request.Form {
		return 0
	}
	if size == nil {
		c.violate(RuleMaxSize, "size", "is missing; give the exact size in bytes, at most %d", c.policy.MaxSize)
		return 0
	}
	switch {
	case *size < 0:
		c.violate(RuleMaxSize, "size", "%d is not a size; give the exact size in bytes, at most %d", *size, c.policy.MaxSize)
	case *size > c.policy.MaxSize:
		c.violate(RuleMaxSize, "size", "%d is over the policy's %d bytes", *size, c.policy.MaxSize)
	}
	return *size
}

// sizes are the limits of a form, which OSS keeps: a form can fix a range where a URL fixes the size.
func (c *check) sizes() (least, most int64) {
	if !c.request.Form {
		return 0, 0
	}
	most = min(c.policy.MaxSize, ossrule.MaxPut)
	if c.request.MinSize != nil {
		least = *c.request.MinSize
	}
	if c.request.MaxSize != nil {
		most = *c.request.MaxSize
	}
	switch {
	case least < 0:
		c.violate(RuleMaxSize, "min_size", "%d is not a size; give bytes, at most %d", least, c.policy.MaxSize)
	case least > c.policy.MaxSize:
		c.violate(RuleMaxSize, "min_size", "%d is over the policy's %d bytes", least, c.policy.MaxSize)
	}
	switch {
	case most < least:
		c.violate(RuleMaxSize, "max_size", "%d is less than min_size", most)
	case most > c.policy.MaxSize:
		c.violate(RuleMaxSize, "max_size", "%d is over the policy's %d bytes", most, c.policy.MaxSize)
	}
	return least, most
}

// expires limits how long a leaked URL can be used.
func (c *check) expires() time.Duration {
	if c.request.Expires == nil {
		return min(defaultExpiry, c.policy.MaxExpiry)
	}
	expires := *c.request.Expires
	if expires > c.policy.MaxExpiry {
		c.violate(RuleMaxExpiry, "expires_in", "%s is over the policy's %s", expires, c.policy.MaxExpiry)
	}
	return expires
}

// vars keeps variables that the policy does not name out of the recorded event.
func (c *check) vars() {
	for _, name := range c.policy.RequiredVars {
		if c.request.Vars[name] == "" {
			c.violate(RuleRequiredVars, "vars."+name, "is missing or empty; the policy requires it")
		}
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
