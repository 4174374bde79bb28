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
func parseHeaderAuthorization(header http.Header) (*authorization, error) {
	values := header.Values("Authorization")
	if len(values) != 1 {
		return nil, errInvalidArgument.saying("More than one Authorization header.", "")
	}
	scheme, rest, _ := strings.Cut(values[0], " ")
	if scheme != algorithmV4 {
		return nil, errInvalidArgument.saying("Unsupported signature version in Authorization header: "+otherVersion, "")
	}
	fields, err := authorizationFields(rest)
	if err != nil {
		return nil, err
	}
	cred, ok := parseCredential(fields["Credential"])
	if !ok {
		return nil, badArgument("Credential", fields["Credential"], "Invalid Credential in Authorization header.", inHeader.credential)
	}
	a := &authorization{credential: cred, from: inHeader, signature: fields["Signature"], token: header.Get("x-oss-security-token")}
	if !isSignature(a.signature) {
		return nil, badArgument("Signature", a.signature, "Invalid Signature in Authorization header.", inHeader.signature)
	}
	// x-oss-date takes precedence: clients that cannot set Date send it.
	layout := isoTime
	if a.date = header.Get("x-oss-date"); a.date == "" {
		layout, a.date = http.TimeFormat, header.Get("Date")
	}
	if a.date == "" {
		return nil, errNoDate
	}
	if a.signed, err = parseDate(layout, a.date); err != nil {
		return nil, err
	}
	if list, given := fields["AdditionalHeaders"]; given {
		if a.additional, err = parseAdditional(list, inHeader); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// authorizationFields splits what follows the scheme.
func authorizationFields(text string) (map[string]string, error) {
	malformed := func(why, ec string) error {
		return errInvalidArgument.saying("Authorization header is not well-formed: "+why+".", ec)
	}
	fields := make(map[string]string)
	for item := range strings.SplitSeq(text, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(item), "=")
		_, twice := fields[name]
		switch {
		case !ok:
			return nil, malformed("a field has no equals sign", "0002-00000203")
		case twice:
			return nil, malformed("a field appears twice", "")
		case !slices.Contains([]string{"Credential", "AdditionalHeaders", "Signature"}, name):
			return nil, malformed("a field is unknown", "0002-00000204")
		}
		fields[name] = value
	}
	for name, ec := range map[string]string{"Credential": inHeader.noCredential, "Signature": inHeader.noSignature} {
		if _, ok := fields[name]; !ok {
			return nil, badArgument(name, "", "Authorization header is not well-formed: "+name+" is missing.", ec)
		}
	}
	return fields, nil
}

// parseAdditional reads the list of further signed headers and returns it sorted.
func parseAdditional(list string, from carrier) ([]string, error) {
	wrong := func(why, ec string) ([]string, error) {
		return nil, badArgument("x-oss-additional-headers", list, why, ec)
	}
	if list == "" {
		return wrong("The list of additional headers is empty.", from.emptyList)
	}
	names := strings.Split(list, ";")
	for i, name := range names {
		switch {
		case name == "":
			return wrong("The list of additional headers holds an empty name.", from.emptyName)
		case strings.Contains(name, "_"):
			// Proxies turn underscores into hyphens and back: such a name is not
			// the same header on both sides.
			return wrong("The name of an additional header holds an underscore.", from.missingName)
		case !ossrule.IsName(name):
			return wrong("The name of an additional header is not lower case.", "")
		case slices.Contains(names[:i], name):
			return wrong("An additional header is listed twice.", "")
		}
	}
	slices.Sort(names)
	return names, nil
}

// isSignature reports whether s has the shape of a V4 signature.
func isSignature(s string) bool {
	return len(s) == 64 && !strings.ContainsFunc(s, func(c rune) bool { return !('0' <= c && c <= '9' || 'a' <= c && c <= 'f') })
}
