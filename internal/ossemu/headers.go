package ossemu

import (
	"net/http"
	"strings"
)

// spell gives the names of an answer's headers OSS's own spelling, which net/http makes
// X-Oss-Request-Id, Content-Md5 and Etag: clients exist that read them by exact case.
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
