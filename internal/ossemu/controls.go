package ossemu

import (
	"regexp"
	"strconv"
	"strings"
)

// XML has no control characters, not even as references. Keys may hold them, though, and
// the official SDKs and OSS write references all the same. So that encoding/xml lets
// them pass, each is a character of the last private plane while it is inside.
const controlPlane = 0x10FF00

// isControl leaves out those that XML has.
func isControl(r rune) bool { return r >= 0 && r < ' ' && r != '\t' && r != '\n' && r != '\r' }

var (
	characterReference = regexp.MustCompile(`&#(x[0-9a-fA-F]{1,6}|[0-9]{1,7});`)
	planeCharacter     = regexp.MustCompile("[\U0010FF00-\U0010FF1F]")
)

// hideControls makes a text fit for encoding/xml.
func hideControls(s string) string {
	return strings.Map(func(r rune) rune {
		if isControl(r) {
			return r + controlPlane
		}
		return r
	}, s)
}

// unhideControls undoes hideControls.
func unhideControls(s string) string {
	return strings.Map(func(r rune) rune {
		if isControl(r - controlPlane) {
			return r - controlPlane
		}
		return r
	}, s)
}

// hideInDocument does for a document that is to be read what hideControls does for a
// text: ali-oss writes the characters, the other SDKs references to them.
func hideInDocument(doc []byte) []byte {
	text := characterReference.ReplaceAllStringFunc(string(doc), func(reference string) string {
		digits, base := reference[2:len(reference)-1], 10
		if digits[0] == 'x' {
			digits, base = digits[1:], 16
		}
		if n, err := strconv.ParseUint(digits, base, 32); err == nil && n < ' ' && isControl(rune(n)) {
			return hideControls(string(rune(n)))
		}
		return reference
	})
	return []byte(hideControls(text))
}

// plainXML takes out of a document's escapes what no XML needs, because people compare the
// StringToSign of an answer with their own by eye and OSS prints its line breaks, and
// puts in the references that hideControls hid.
func plainXML(doc string) string {
	doc = strings.NewReplacer("&#xA;", "\n", "&#x9;", "\t", "&#34;", `"`, "&#39;", "'").Replace(doc)
	return planeCharacter.ReplaceAllStringFunc(doc, func(hidden string) string {
		return "&#" + strconv.Itoa(int([]rune(hidden)[0]-controlPlane)) + ";"
	})
}
