package verify

import "strings"

// StringToSign returns what OSS signs for a callback: the path of the request target,
// percent-decoded once, then "?" and the raw query if there is one, one LF, and the
// raw body.
//
// target is the request target as it stands on the request line (http.Request's
// RequestURI); the absolute form "http://host/path?query" is taken for "/path?query".
// A "+" in the path stays a plus, as RFC 3986 has it; OSS's own samples disagree about
// that, so a callback path had better have none. The query is everything after the
// first "?", neither decoded nor sorted. An empty query counts as none: "/p?" signs as
// "/p".
//
// The error matches [ErrTarget].
//
// Source: "Callback" in the OSS API reference (2025-09-19), where the separator is
// called a carriage return and the "?" is left out; LF and "?" are what genuine
// callbacks are signed with.
func StringToSign(target string, body []byte) ([]byte, error) {
	path, query, err := splitTarget(target)
	if err != nil {
		return nil, err
	}
	signed := make([]byte, 0, len(path)+len("?")+len(query)+len("\n")+len(body))
	signed, err = appendUnescaped(signed, path)
	if err != nil {
		return nil, err
	}
	if query != "" {
		signed = append(signed, '?')
		signed = append(signed, query...)
	}
	signed = append(signed, '\n')
	return append(signed, body...), nil
}

// splitTarget cuts a request target into its raw path and raw query.
func splitTarget(target string) (path, query string, err error) {
	for i := range len(target) {
		// No HTTP parser lets these through; a caller that does must not have them signed.
		if c := target[i]; c <= ' ' || c == 0x7f {
			return "", "", ErrTarget.with("byte 0x%02x at offset %d", c, i)
		}
	}
	if rest, ok := cutScheme(target); ok {
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
	path, query, _ = strings.Cut(target, "?")
	return path, query, nil
}

func cutScheme(target string) (rest string, ok bool) {
	if rest, ok = strings.CutPrefix(target, "http://"); ok {
		return rest, true
	}
	return strings.CutPrefix(target, "https://")
}

// appendUnescaped appends path with its percent escapes decoded, once.
func appendUnescaped(dst []byte, path string) ([]byte, error) {
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' {
			if i+2 >= len(path) {
				return nil, ErrTarget.with("broken percent escape at the end")
			}
			high, low := unhex(path[i+1]), unhex(path[i+2])
			if high < 0 || low < 0 {
				return nil, ErrTarget.with("broken percent escape %q", path[i:i+3])
			}
			c = byte(high<<4 | low)
			// The signature does not say where the target ends and the body begins but by
			// the first LF. An escaped LF in the path would let a genuine signature over a
			// body of several lines be replayed with its first line moved into the path.
			if c < ' ' || c == 0x7f {
				return nil, ErrTarget.with("escaped control byte %q", path[i:i+3])
			}
			i += 2
		}
		dst = append(dst, c)
	}
	return dst, nil
}

// unhex returns the value of a hexadecimal digit, or -1.
func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
