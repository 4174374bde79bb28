package ossemu

import (
	"net/http"
	"slices"
	"strings"

	"upcall/internal/ossrule"
)

// parseHeaderAuthorization reads
//
//	Authorization: OSS4-HMAC-SHA256 Credential=…[,AdditionalHeaders=a;b],Signature=…
//
// and the headers that belong to it.
func parseHeaderAuthorization(header http.Header) (authorization, error) {
	values := header.Values("Authorization")
	if len(values) != 1 {
		return authorization{}, errInvalidArgument.saying("More than one Authorization header.", "")
	}
	scheme, rest, _ := strings.Cut(values[0], " ")
	if scheme != algorithmV4 {
		return authorization{}, errInvalidArgument.saying("Unsupported signature version in Authorization header: "+otherVersion, "")
	}
	fields := make(map[string]string)
	for item := range strings.SplitSeq(rest, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(item), "=")
		if _, twice := fields[name]; !ok || twice || !slices.Contains([]string{"Credential", "AdditionalHeaders", "Signature"}, name) {
			return authorization{}, errInvalidArgument.saying("Authorization header is not well-formed.", "")
		}
		fields[name] = value
	}
	cred, ok := parseCredential(fields["Credential"])
	if !ok {
		return authorization{}, badArgument("Credential", fields["Credential"], "Invalid Credential in Authorization header.", "")
	}
	a := authorization{credential: cred, signature: fields["Signature"],
		date: header.Get("x-oss-date"), token: header.Get("x-oss-security-token")}
	if !isSignature(a.signature) {
		return authorization{}, badArgument("Signature", a.signature, "Invalid Signature in Authorization header.", "")
	}
	if a.date == "" {
		return authorization{}, errNoDate
	}
	if list, given := fields["AdditionalHeaders"]; given {
		var err error
		if a.additional, err = parseAdditional(list); err != nil {
			return authorization{}, err
		}
	}
	return a, nil
}

// parseAdditional reads the list of further signed headers and returns it sorted.
func parseAdditional(list string) ([]string, error) {
	if list == "" {
		return nil, badArgument("x-oss-additional-headers", list, "The list of additional headers is empty.", "0002-00000076")
	}
	names := strings.Split(list, ";")
	for i, name := range names {
		switch {
		case name == "":
			return nil, badArgument("x-oss-additional-headers", list, "The list of additional headers holds an empty name.", "0002-00000076")
		case strings.Contains(name, "_"):
			// Proxies turn underscores into hyphens and back: such a name is not
			// the same header on both sides.
			return nil, badArgument("x-oss-additional-headers", list, "The name of an additional header holds an underscore.", "0002-00000078")
		case !ossrule.IsName(name):
			return nil, badArgument("x-oss-additional-headers", list, "The name of an additional header is not lower case.", "")
		case slices.Contains(names[:i], name):
			return nil, badArgument("x-oss-additional-headers", list, "An additional header is listed twice.", "")
		}
	}
	slices.Sort(names)
	return names, nil
}

// isSignature reports whether s has the shape of a V4 signature.
func isSignature(s string) bool {
	return len(s) == 64 && !strings.ContainsFunc(s, func(c rune) bool { return !('0' <= c && c <= '9' || 'a' <= c && c <= 'f') })
}
