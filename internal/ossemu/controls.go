package ossemu

import (
	"regexp"
	"strconv"
	"strings"
)

// XML has no control characters, not even as references, but keys may hold them, and OSS
// and its SDKs write references to them all the same. While encoding/xml handles a text,
// a character of the last private plane replaces each of them.
const controlPlane = 0x10FF00

// isControl reports whether r is a control character that XML lacks.
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

// hideInDocument makes a document readable for encoding/xml. ali-oss writes control
// characters, the other SDKs write references to them.
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

// plainXML undoes the escapes that XML does not need, because people compare the
// StringToSign of an answer with their own by eye, and OSS prints line breaks. It also
// writes references for what hideControls hid.
func plainXML(doc string) string {
	doc = strings.NewReplacer("&#xA;", "\n", "&#x9;", "\t", "&#34;", `"`, "&#39;", "'").Replace(doc)
	return planeCharacter.ReplaceAllStringFunc(doc, func(hidden string) string {
		return "&#" + strconv.Itoa(int([]rune(hidden)[0]-controlPlane)) + ";"
	})
}
