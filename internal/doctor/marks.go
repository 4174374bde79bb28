package doctor

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// token is the shape of an upload token, see package uploadtoken; its dot may be
// percent-encoded.
var token = regexp.MustCompile(`([a-z0-9_-]{1,24}(?:\.|%2[eE]))[A-Za-z0-9_-]{80,}`)

// marks are shown in place of white space.
var marks = map[rune]string{'\n': "␊", '\r': "␍", '\t': "␉", ' ': "·"}

// Mark makes every byte of captured text visible: ␊ is LF, ␍ CR, ␉ a tab, · a space, and
// <0xEF> any byte or character that does not print, or that is a mark itself. Texts that
// look the same are therefore the same, and no capture can send a control sequence to a
// terminal. Upload tokens are masked, because anyone who has one can use it.
func Mark[T string | []byte](text T) string {
	s := token.ReplaceAllString(string(text), "${1}<masked>")
	var out strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch mark, ok := marks[r]; {
		case ok:
			out.WriteString(mark)
		case r == utf8.RuneError && size == 1, !unicode.IsPrint(r), strings.ContainsRune("␊␍␉·", r):
			for _, b := range []byte(s[i : i+size]) {
				fmt.Fprintf(&out, "<0x%02X>", b)
			}
		default:
			out.WriteRune(r)
		}
		i += size
	}
	return out.String()
}

// shorten cuts the middle out of marked text, for people.
func shorten(marked string, limit int) string {
	runes := []rune(marked)
	if len(runes) <= limit {
		return marked
	}
	start, end := string(runes[:limit*2/3]), string(runes[len(runes)-limit/3:])
	return fmt.Sprintf("%s … %d characters … %s", start, len(runes)-limit, end)
}
