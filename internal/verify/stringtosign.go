package verify

import (
	"net/url"
	"strings"
)

// StringToSign returns what OSS signs for a callback: the path of the request target,
// percent-decoded once, then "?" and the raw query if there is one, one LF, and the
// raw body.
//
// target is the request target on the request line (http.Request's RequestURI); the
// absolute form "http://host/path?query" counts as "/path?query". A "+" in the path stays
// a plus, as RFC 3986 has it; OSS's own samples disagree about that, so a callback path
// should have none. The query is everything after the first "?", neither decoded nor
// sorted. An empty query counts as none: "/p?" is signed as "/p".
//
// The error matches [ErrTarget].
//
// Source: "Callback" in the OSS API reference (2025-09-19), which calls the separator a
// carriage return and leaves the "?" out; genuine callbacks are signed with LF and "?".
func StringToSign(target string, body []byte) ([]byte, error) {
	path, query, err := splitTarget(target)
	if err != nil {
		return nil, err
	}
	signed := make([]byte, 0, len(path)+len("?")+len(query)+len("\n")+len(body))
	signed = append(signed, path...)
	if query != "" {
		signed = append(signed, '?')
		signed = append(signed, query...)
	}
	signed = append(signed, '\n')
	return append(signed, body...), nil
}

// splitTarget cuts a request target into its path, decoded once, and its raw query.
func splitTarget(target string) (path, query string, err error) {
	// No HTTP parser accepts these; a caller that does must not get them signed.
	if i := strings.IndexFunc(target, func(r rune) bool { return r == ' ' || isControl(r) }); i >= 0 {
		return "", "", ErrTarget.with("byte 0x%02x at offset %d", target[i], i)
	}
	rest, absolute := strings.CutPrefix(target, "http://")
	if !absolute {
		rest, absolute = strings.CutPrefix(target, "https://")
	}
	if absolute {
		switch end := strings.IndexAny(rest, "/?"); {
		case rest == "" || end == 0:
			return "", "", ErrTarget.with("URL without a host")
		case end < 0:
			target = "/"
		case rest[end] == '?':
			target = "/" + rest[end:]
		default:
			target = rest[end:]
		}
	}
	if !strings.HasPrefix(target, "/") {
		return "", "", ErrTarget.with("neither a path nor an absolute URL")
	}
	escaped, query, _ := strings.Cut(target, "?")
	path, err = url.PathUnescape(escaped)
	if err != nil {
		return "", "", ErrTarget.with("%v", err)
	}
	// Only the first LF in the string to sign shows where the target ends and the body begins.
	// An escaped LF in the path would let a genuine signature over a body of several lines
	// be replayed with its first line moved into the path.
	if i := strings.IndexFunc(path, isControl); i >= 0 {
		return "", "", ErrTarget.with("escaped control byte 0x%02x", path[i])
	}
	return path, query, nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }
