package doctor

import (
	"encoding/hex"
	"path"
	"regexp"
	"slices"
	"strings"
)

// splitTarget reads a request target as package verify does, but accepts any text: the
// search undoes what is wrong with it.
func splitTarget(target string) (rawPath, query string) {
	if origin.MatchString(target) {
		target = cutOrigin(target)
	}
	rawPath, query, _ = strings.Cut(target, "?")
	return rawPath, query
}

var origin = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*://`)

// unescape decodes percent escapes once, and leaves broken ones as they are.
func unescape(s string) string {
	return anyEscape.ReplaceAllStringFunc(s, func(escape string) string {
		decoded, _ := hex.DecodeString(escape[1:]) // as anyEscape has two digits
		return string(decoded)
	})
}

// prefixes are common mount points of receivers.
var prefixes = []string{
	"/api", "/oss", "/callback", "/upload", "/v1", "/api/v1", "/hooks", "/webhook", "/webhooks", "/upcall", "/receiver",
	"/hook", "/callbacks", "/uploads", "/api/oss", "/api/callback", "/oss/callback", "/api/upload", "/v2", "/api/v2",
	"/app", "/service", "/services", "/backend", "/server", "/internal", "/public", "/gateway", "/gw", "/prod",
	"/prod-api", "/dev-api", "/stage", "/staging", "/test", "/dev", "/file", "/files", "/api/file", "/media",
	"/storage", "/rest", "/aliyun", "/web", "/admin", "/proxy", "/open", "/openapi",
}

var (
	manySlashes    = regexp.MustCompile(`/{2,}`)
	brokenEscape   = regexp.MustCompile(`%u[0-9a-fA-F]{4}|%[^%]{0,2}`)
	controlBytes   = regexp.MustCompile("[\x00-\x20\x7f]+")
	pathParameters = regexp.MustCompile(`;[^/]*`)
	indexFile      = regexp.MustCompile(`/index\.(html?|php|jsp|do)$`)
)

// pathSteps undo what proxies and signers do to a path. The steps work on the decoded
// path; raw is the path as received.
func pathSteps(raw string) []step {
	return []step{
		{PathTrailingSlash, func(p string) []string {
			if cut, ok := strings.CutSuffix(p, "/"); ok && cut != "" {
				return []string{cut}
			}
			return []string{p + "/"}
		}},
		{PathSlashes, func(p string) []string {
			one := manySlashes.ReplaceAllString("/"+p, "/")
			found := []string{one, "/" + one}
			for i := 1; i < len(p); i++ {
				if p[i] == '/' {
					found = append(found, p[:i]+"/"+p[i:])
				}
			}
			return found
		}},
		once(PathDotSegments, path.Clean),
		once(PathQueryMark, func(p string) string { return strings.TrimSuffix(p, "?") }),
		{PathPrefixAdded, func(p string) (cut []string) {
			for i := 1; i < len(p); i++ {
				if p[i] == '/' {
					cut = append(cut, p[i:])
				}
			}
			return append(cut, "/")
		}},
		once(PathDecoded, func(p string) string {
			if unescape(raw) == p {
				return raw
			}
			return p
		}),
		once(PathEncodedAgain, unescape),
		{PathPlus, func(p string) []string {
			return []string{strings.ReplaceAll(p, "+", " "), strings.ReplaceAll(p, " ", "+")}
		}},
		once(PathParameters, func(p string) string { return pathParameters.ReplaceAllString(p, "") }),
		{PathCase, otherCase},
		once(PathControlBytes, func(p string) string { return controlBytes.ReplaceAllString(p, "") }),
		once(PathBrokenEscape, func(p string) string { return brokenEscape.ReplaceAllString(p, "") }),
		{PathIndexFile, func(p string) []string {
			cut := indexFile.ReplaceAllString(p, "/")
			bare := strings.TrimSuffix(p, "/")
			return []string{cut, bare + "/index.html", bare + "/index.php"}
		}},
		{PathPrefixStripped, func(p string) (whole []string) {
			for _, prefix := range prefixes {
				whole = append(whole, strings.TrimSuffix(prefix+"/"+strings.TrimPrefix(p, "/"), "/"), prefix+p)
			}
			return whole
		}},
	}
}

// otherCase returns a path in lower case; if it is, with one letter or one segment in upper case.
func otherCase(p string) []string {
	const longest = 60 // bytes
	found := []string{strings.ToLower(p)}
	if len(p) > longest || found[0] != p {
		return found
	}
	segments := strings.Split(p, "/")
	for i, segment := range segments {
		changed := slices.Clone(segments)
		changed[i] = strings.ToUpper(segment)
		found = append(found, strings.Join(changed, "/"))
	}
	for i := range len(p) {
		found = append(found, p[:i]+strings.ToUpper(p[i:i+1])+p[i+1:])
	}
	return found
}

// hintKind names the change from the path as received to the path that a hint gives.
func hintKind(received, told string) Kind {
	switch {
	case strings.TrimSuffix(received, "/") == strings.TrimSuffix(told, "/"):
		return PathTrailingSlash
	case strings.HasSuffix(told, received):
		return PathPrefixStripped
	case strings.HasSuffix(received, told):
		return PathPrefixAdded
	}
	return PathReplaced
}
