package ossemu

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"upcall/internal/fault"
)

// A CORSRule is the one rule of every bucket. Its fields are OSS's AllowedOrigin,
// AllowedMethod, AllowedHeader, ExposeHeader and MaxAgeSeconds. The zero value allows
// nothing, like a bucket without rules.
type CORSRule struct {
	Origins []string      // "*", or origins that may have one *
	Methods []string      // of GET, PUT, POST, DELETE and HEAD
	Headers []string      // that a preflight may ask for, without case; each may have one *
	Expose  []string      // response headers that scripts may read
	MaxAge  time.Duration // how long a browser may keep the answer; 0 leaves it to the browser
}

var corsMethods = []string{"GET", "PUT", "POST", "DELETE", "HEAD"}

// DefaultCORS allows every page everything that the emulator has. On OSS, a bucket has no
// rule until one is set.
func DefaultCORS() CORSRule {
	return CORSRule{
		Origins: []string{"*"},
		Methods: corsMethods,
		Headers: []string{"*"},
		Expose: []string{"ETag", "Content-MD5", "Content-Range", "x-oss-request-id", "x-oss-hash-crc64ecma", "x-oss-ec", "x-oss-err",
			"x-oss-server-time", "x-oss-object-type", "x-oss-storage-class", "Retry-After"},
		MaxAge: time.Minute,
	}
}

// check adds the mistakes in the rule to faults.
func (r CORSRule) check(faults *fault.List) {
	for _, origin := range r.Origins {
		if origin != "*" && !strings.Contains(origin, "://") || strings.HasSuffix(origin, "/") || strings.Count(origin, "*") > 1 {
			faults.AddAt("", "CORS origin %q is not one; write https://app.example, https://*.example or *", origin)
		}
	}
	for _, method := range r.Methods {
		if !slices.Contains(corsMethods, method) {
			faults.AddAt("", "CORS method %q is not one; use %s", method, strings.Join(corsMethods, ", "))
		}
	}
	for _, header := range r.Headers {
		if header == "" || strings.Count(header, "*") > 1 {
			faults.AddAt("", "CORS header %q is not one; write a name, with at most one *", header)
		}
	}
	for _, header := range r.Expose {
		if header == "" || strings.Contains(header, "*") {
			faults.AddAt("", "exposed header %q is not one; write a name, without *", header)
		}
	}
	if r.MaxAge < 0 {
		faults.AddAt("", "the CORS max age is negative; use 0s for none")
	}
}

// allows reports whether the rule lets pages of an origin use a method.
func (r CORSRule) allows(origin, method string) bool {
	return slices.Contains(r.Methods, method) &&
		slices.ContainsFunc(r.Origins, func(pattern string) bool { return matchesStar(pattern, origin) })
}

// allowsHeaders reports whether the rule allows every header that a preflight lists.
func (r CORSRule) allowsHeaders(list string) bool {
	for name := range strings.SplitSeq(strings.ToLower(list), ",") {
		name = strings.TrimSpace(name)
		if name != "" && !slices.ContainsFunc(r.Headers, func(pattern string) bool { return matchesStar(strings.ToLower(pattern), name) }) {
			return false
		}
	}
	return true
}

// matchesStar matches a text against a pattern with at most one "*".
func matchesStar(pattern, text string) bool {
	before, after, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == text
	}
	return len(text) >= len(before)+len(after) && strings.HasPrefix(text, before) && strings.HasSuffix(text, after)
}

// allowOrigin adds the headers that let a browser show the answer to its script.
// Any origin may be allowed, because the signature authorises a request, not a cookie.
func (s *Server) allowOrigin(c *call) {
	origin := c.r.Header.Get("Origin")
	if origin == "" || c.r.Method == http.MethodOptions || !s.cfg.CORS.allows(origin, c.r.Method) {
		return
	}
	s.showTo(c, origin)
}

func (s *Server) showTo(c *call, origin string) {
	h := c.w.Header()
	h.Set("Access-Control-Allow-Origin", origin)
	if len(s.cfg.CORS.Expose) > 0 {
		h.Set("Access-Control-Expose-Headers", strings.Join(s.cfg.CORS.Expose, ", "))
	}
	h.Add("Vary", "Origin")
}

// preflight answers OPTIONS. A denial lacks the Allow headers and gives the reason in
// OSS's words, typing errors included.
func (s *Server) preflight(c *call) error {
	origin, method := c.r.Header.Get("Origin"), c.r.Header.Get("Access-Control-Request-Method")
	if origin == "" || method == "" {
		return errInvalidArgument.saying("A preflight request needs Origin and Access-Control-Request-Method.", "")
	}
	if len(s.cfg.CORS.Origins) == 0 {
		return errNoCORS.with("Method", method, "ResourceType", "OBJECT", "Origin", origin)
	}
	wanted := c.r.Header.Get("Access-Control-Request-Headers")
	if !s.cfg.CORS.allows(origin, method) || !s.cfg.CORS.allowsHeaders(wanted) {
		return errCORSForbidden.with("Method", method, "ResourceType", "OBJECT", "Origin", origin)
	}
	s.showTo(c, origin)
	h := c.w.Header()
	h.Set("Access-Control-Allow-Methods", strings.Join(s.cfg.CORS.Methods, ", "))
	if wanted != "" {
		h.Set("Access-Control-Allow-Headers", wanted)
		h.Add("Vary", "Access-Control-Request-Headers")
	}
	if s.cfg.CORS.MaxAge > 0 {
		h.Set("Access-Control-Max-Age", strconv.Itoa(int(s.cfg.CORS.MaxAge.Seconds())))
	}
	return c.writeNothing(http.StatusOK)
}
