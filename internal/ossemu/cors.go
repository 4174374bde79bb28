package ossemu

import (
	"net/http"
	"slices"
)

// exposedHeaders is what scripts of other origins may read of an answer.
const exposedHeaders = "ETag, Content-MD5, Content-Range, x-oss-request-id, x-oss-hash-crc64ecma, x-oss-ec, x-oss-err, " +
	"x-oss-server-time, x-oss-object-type, x-oss-storage-class"

func (s *Server) originAllowed(origin string) bool {
	return len(s.cfg.AllowedOrigins) == 0 || slices.Contains(s.cfg.AllowedOrigins, "*") || slices.Contains(s.cfg.AllowedOrigins, origin)
}

// allowOrigin adds the headers that let a browser show the answer to its script.
// Nothing here rests on cookies, so any origin may be allowed: the signature is what
// authorises.
func (s *Server) allowOrigin(c *call) {
	origin := c.r.Header.Get("Origin")
	if origin == "" || !s.originAllowed(origin) {
		return
	}
	h := c.w.Header()
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Expose-Headers", exposedHeaders)
	h.Add("Vary", "Origin")
}

// preflight answers OPTIONS. A denial lacks the Allow headers and says why in OSS's
// words, typing errors included.
func (s *Server) preflight(c *call) error {
	origin, method := c.r.Header.Get("Origin"), c.r.Header.Get("Access-Control-Request-Method")
	if origin == "" || method == "" {
		return errInvalidArgument.saying("A preflight request needs Origin and Access-Control-Request-Method.", "")
	}
	if !s.originAllowed(origin) || !slices.Contains([]string{"GET", "PUT", "POST", "DELETE", "HEAD"}, method) {
		c.w.Header().Del("Access-Control-Allow-Origin")
		return errCORSForbidden.with("Method", method, "ResourceType", "OBJECT", "Origin", origin)
	}
	h := c.w.Header()
	h.Set("Access-Control-Allow-Methods", "GET, PUT, POST, DELETE, HEAD")
	if wanted := c.r.Header.Get("Access-Control-Request-Headers"); wanted != "" {
		h.Set("Access-Control-Allow-Headers", wanted)
		h.Add("Vary", "Access-Control-Request-Headers")
	}
	h.Set("Access-Control-Max-Age", "60")
	return c.writeNothing(http.StatusOK)
}
