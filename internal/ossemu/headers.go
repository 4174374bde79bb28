package ossemu

import (
	"net/http"
	"strings"
)

// spell restores OSS's spelling of header names, because some clients look for the exact
// case. net/http spells them X-Oss-Request-Id, Content-Md5 and Etag.
func spell(h http.Header) {
	for name, values := range h {
		spelled := name
		switch lower := strings.ToLower(name); {
		case strings.HasPrefix(lower, "x-oss-"):
			spelled = lower
		case lower == "content-md5":
			spelled = "Content-MD5"
		case lower == "etag":
			spelled = "ETag"
		}
		if spelled != name {
			delete(h, name)
			h[spelled] = values
		}
	}
}
