package doctor

import (
	"regexp"
	"slices"
	"strings"

	"upcall/internal/callbackspec"
	"upcall/internal/ossrule"
)

var anyEscape = regexp.MustCompile(`%[0-9a-fA-F]{2}`)

// spellings are the ways in which programs percent-encode a value. The first is OSS's.
var spellings = []func(string) string{
	spelling("~", "%20"),
	spelling("~", "+"),                  // Go's url.QueryEscape
	spelling("*", "+"),                  // Java's URLEncoder, browsers' forms
	spelling("", "+"),                   // PHP's urlencode
	spelling("~/", "%20"),               // Python's quote
	spelling("~!'()*", "%20"),           // JavaScript's encodeURIComponent
	spelling("~!'()*;/?:@$,", "%20"),    // encodeURI, for characters that do not end a value
	spelling("~:/", "%20"),              // nginx and others, for values
	spelling("~!$'()*,;:@/?", "%20"),    // all that RFC 3986 allows in a query's value
	spelling("~!$'()*,;:@/?[]{}|", "+"), // browsers' address bars
}

// spelling percent-encodes everything but letters, digits, "-", ".", "_" and the characters
// in kept, and writes a space as given.
func spelling(kept, space string) func(string) string {
	changes := []string{"%20", space}
	for _, c := range kept {
		changes = append(changes, ossrule.Escape(string(c)), string(c))
	}
	replacer := strings.NewReplacer(append(changes, "~", "%7E")...) // the first of two rules for "~" counts
	return func(s string) string { return replacer.Replace(ossrule.Escape(s)) }
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
	for _, decode := range []func(string) string{decodeForm, unescape} {
		for _, spell := range spellings {
			upper := eachHalf(s, func(half string) string { return spell(decode(half)) })
			out = append(out, upper, anyEscape.ReplaceAllStringFunc(upper, strings.ToLower))
		}
		out = append(out, eachHalf(s, decode))
	}
	return append(out, eachHalf(s, ossrule.Escape))
}

// decodeForm decodes a value of a form, in which a plus is a space.
func decodeForm(s string) string { return unescape(strings.ReplaceAll(s, "+", " ")) }

// templateRank is the place of a field in OSS's default template: system variables,
// then others, then the token.
func templateRank(name string) int {
	last := len(callbackspec.SystemVariables)
	switch i := slices.Index(callbackspec.SystemVariables, name); {
	case i >= 0:
		return i
	case name == callbackspec.TokenField:
		return last + 1
	}
	return last
}
