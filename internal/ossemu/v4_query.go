package ossemu

import (
	"slices"
	"strconv"
	"strings"
)

// A query is a decoded query string in which each key stands once.
type query map[string]string

func (q query) has(key string) bool { _, ok := q[key]; return ok }

// parseQuery decodes a raw query strictly. A "+" is a space, as the official signers
// have it. A key that stands twice is refused: the signature would cover one value and
// the operation could read the other.
func parseQuery(raw string) (query, error) {
	q := query{}
	for item := range strings.SplitSeq(raw, "&") {
		if item == "" {
			continue
		}
		rawKey, rawValue, _ := strings.Cut(item, "=")
		key, ok1 := unescapeQuery(rawKey)
		value, ok2 := unescapeQuery(rawValue)
		if !ok1 || !ok2 {
			return nil, errInvalidArgument.saying("The query string is not percent-encoded correctly.", "")
		}
		if q.has(key) {
			return nil, badArgument(key, value, "The parameter stands more than once in the query string.", "")
		}
		q[key] = value
	}
	return q, nil
}

func unescapeQuery(s string) (string, bool) {
	if !strings.ContainsAny(s, "%+") {
		return s, true
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '+':
			b.WriteByte(' ')
		case '%':
			if i+2 >= len(s) {
				return "", false
			}
			n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil {
				return "", false
			}
			b.WriteByte(byte(n))
			i += 2
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), true
}

// canonical is the query as it is signed: encoded per RFC 3986, sorted by key, an
// empty value without "=", and without the signature itself. Sorting by whole items
// would be wrong: "callback" sorts before "callback-var", "callback-var=" before
// "callback=".
func (q query) canonical() string {
	keys := make([]string, 0, len(q))
	values := make(map[string]string, len(q))
	for key, value := range q {
		if key != "x-oss-signature" {
			encoded := escape(key, false)
			keys = append(keys, encoded)
			values[encoded] = value
		}
	}
	slices.Sort(keys)
	for i, key := range keys {
		if v := values[key]; v != "" {
			keys[i] = key + "=" + escape(v, false)
		}
	}
	return strings.Join(keys, "&")
}

// escape percent-encodes all but RFC 3986's unreserved characters, in upper-case hex,
// and on demand leaves slashes.
func escape(s string, keepSlash bool) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
			c == '-' || c == '.' || c == '_' || c == '~' || c == '/' && keepSlash {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(hex[c>>4])
		b.WriteByte(hex[c&15])
	}
	return b.String()
}

// parseQueryAuthorization reads the x-oss-* parameters of a presigned URL.
func parseQueryAuthorization(q query) (authorization, error) {
	if v := q["x-oss-signature-version"]; v != algorithmV4 {
		return authorization{}, badArgument("x-oss-signature-version", v, "Unsupported signature version: this server takes "+algorithmV4+" only.", "")
	}
	if !q.has("x-oss-credential") {
		return authorization{}, badArgument("x-oss-credential", "", "The x-oss-credential parameter is missing.", "0002-00000217")
	}
	cred, ok := parseCredential(q["x-oss-credential"])
	if !ok {
		return authorization{}, badArgument("x-oss-credential", q["x-oss-credential"], "The x-oss-credential parameter is not well-formed.", "")
	}
	a := authorization{credential: cred, date: q["x-oss-date"], signature: q["x-oss-signature"], token: q["x-oss-security-token"]}
	if !isSignature(a.signature) {
		return authorization{}, badArgument("x-oss-signature", a.signature, "The x-oss-signature parameter is not a V4 signature.", "")
	}
	if a.date == "" {
		return authorization{}, errNoDate
	}
	if !q.has("x-oss-expires") {
		return authorization{}, badArgument("x-oss-expires", "", "The x-oss-expires parameter is missing.", "0002-00000215")
	}
	var err error
	if a.expires, err = strconv.Atoi(q["x-oss-expires"]); err != nil || a.expires < 1 || a.expires > maxExpires {
		return authorization{}, badArgument("x-oss-expires", q["x-oss-expires"], "The x-oss-expires parameter must be a number of seconds from 1 to 604800.", "0002-00000232")
	}
	if q.has("x-oss-additional-headers") {
		if a.additional, err = parseAdditional(q["x-oss-additional-headers"]); err != nil {
			return authorization{}, err
		}
	}
	return a, nil
}
