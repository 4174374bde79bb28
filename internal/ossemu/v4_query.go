package ossemu

import (
	"net/url"
	"slices"
	"strconv"
	"strings"

	"upcall/internal/ossrule"
)

// A query is a decoded query string in which each key stands once.
type query map[string]string

func (q query) has(key string) bool { _, ok := q[key]; return ok }

// parseQuery decodes a raw query strictly. A "+" is a space, as the official signers
// have it. A repeated key is refused: the signature would cover one value and
// the operation could read the other.
func parseQuery(raw string) (query, error) {
	q := query{}
	for item := range strings.SplitSeq(raw, "&") {
		if item == "" {
			continue
		}
		rawKey, rawValue, _ := strings.Cut(item, "=")
		key, keyErr := url.QueryUnescape(rawKey)
		value, valueErr := url.QueryUnescape(rawValue)
		if keyErr != nil || valueErr != nil {
			return nil, errInvalidArgument.saying("The query string is not percent-encoded correctly.", "")
		}
		if q.has(key) {
			return nil, badArgument(key, value, "The parameter stands more than once in the query string.", "")
		}
		q[key] = value
	}
	return q, nil
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
			encoded := ossrule.Escape(key)
			keys = append(keys, encoded)
			values[encoded] = value
		}
	}
	slices.Sort(keys)
	for i, key := range keys {
		if v := values[key]; v != "" {
			keys[i] = key + "=" + ossrule.Escape(v)
		}
	}
	return strings.Join(keys, "&")
}

// parseQueryAuthorization reads the x-oss-* parameters of a presigned URL.
func parseQueryAuthorization(q query) (authorization, error) {
	if v := q["x-oss-signature-version"]; v != algorithmV4 {
		return authorization{}, badArgument("x-oss-signature-version", v, "Unsupported signature version: "+otherVersion, "")
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
		return authorization{}, badArgument("x-oss-expires", q["x-oss-expires"],
			"The x-oss-expires parameter must be a number of seconds from 1 to 604800.", "0002-00000232")
	}
	if q.has("x-oss-additional-headers") {
		if a.additional, err = parseAdditional(q["x-oss-additional-headers"]); err != nil {
			return authorization{}, err
		}
	}
	return a, nil
}
