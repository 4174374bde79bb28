package doctor

import (
	"regexp"
	"slices"
	"strings"

	"upcall/internal/callbackspec"
)

var anyEscape = regexp.MustCompile(`%[0-9a-fA-F]{2}`)

// spellings are the ways in which programs percent-encode a value: the characters
// besides letters and digits that they leave alone, and how they write a space. The
// first is OSS's.
var spellings = []struct{ kept, space string }{
	{"-._~", "%20"},
	{"-._~", "+"},                  // Go's url.QueryEscape
	{"-._*", "+"},                  // Java's URLEncoder, browsers' forms
	{"-._", "+"},                   // PHP's urlencode
	{"-._~/", "%20"},               // Python's quote
	{"-._~!'()*", "%20"},           // JavaScript's encodeURIComponent
	{"-._~!'()*;/?:@$,", "%20"},    // of encodeURI, what does not end a value
	{"-._~:/", "%20"},              // nginx and others, for values
	{"-._~!$'()*,;:@/?", "%20"},    // all that RFC 3986 allows in a query's value
	{"-._~!$'()*,;:@/?[]{}|", "+"}, // browsers' address lines
}

// respell returns a query or a form with its values percent-encoded in other ways, or
// not at all.
func respell(s string) []string {
	out := []string{
		anyEscape.ReplaceAllStringFunc(s, strings.ToUpper),
		anyEscape.ReplaceAllStringFunc(s, strings.ToLower),
		strings.ReplaceAll(s, "+", "%20"),
		strings.ReplaceAll(s, "%20", "+"),
		strings.ReplaceAll(s, "%2B", "+"),
		strings.ReplaceAll(s, "+", "%2B"),
		strings.ReplaceAll(s, " ", "+"),
		strings.ReplaceAll(s, " ", "%20"),
	}
	for _, plusIsSpace := range []bool{true, false} {
		for _, spelling := range spellings {
			upper := eachHalf(s, func(half string) string {
				return escape(decode(half, plusIsSpace), spelling.kept, spelling.space)
			})
			out = append(out, upper, anyEscape.ReplaceAllStringFunc(upper, strings.ToLower))
		}
		out = append(out, eachHalf(s, func(half string) string { return decode(half, plusIsSpace) }))
	}
	return append(out, eachHalf(s, func(half string) string { return escape(half, "-._~", "%20") }), unescape(s))
}

func decode(s string, plusIsSpace bool) string {
	if plusIsSpace {
		s = strings.ReplaceAll(s, "+", " ")
	}
	return unescape(s)
}

const upperHex = "0123456789ABCDEF"

// escape percent-encodes all but letters, digits and kept.
func escape(s, kept, space string) string {
	var out strings.Builder
	for _, c := range []byte(s) {
		switch {
		case '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || strings.IndexByte(kept, c) >= 0:
			out.WriteByte(c)
		case c == ' ':
			out.WriteString(space)
		default:
			out.Write([]byte{'%', upperHex[c>>4], upperHex[c&15]})
		}
	}
	return out.String()
}

// templateRank is the place of a field in OSS's default template: system variables,
// then others, then the token.
func templateRank(name string) int {
	if name == callbackspec.TokenField {
		return len(callbackspec.SystemVariables) + 1
	}
	if i := slices.Index(callbackspec.SystemVariables, name); i >= 0 {
		return i
	}
	return len(callbackspec.SystemVariables)
}
