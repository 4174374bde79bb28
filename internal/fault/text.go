package fault

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// most is how many bytes of a text that somebody else chose a mistake shows.
const most = 80

// Short cuts a text between two characters.
func Short(text string) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// Quote is a text, in quotes, that is safe and short enough for one line.
func Quote(text string) string { return strconv.Quote(Short(text)) }

// Name is a name without quotes that is safe and short enough for one line: characters
// that do not print become question marks.
func Name(text string) string {
	return Short(strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, text))
}

// Readable quotes a text that would move a terminal's cursor or break a table, and
// returns any other as it is.
func Readable(text string) string {
	if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return strconv.Quote(text)
	}
	return text
}

// Line makes one line of a text, such as a server's answer: line breaks and characters
// that move a terminal's cursor become spaces.
func Line(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || !strconv.IsPrint(r) }), " ")
}

// OneLine returns err with its text on one line: pgx, for one, says on a line of its own
// why each address cannot be reached.
func OneLine(err error) error { return lineError{err} }

type lineError struct{ error }

func (e lineError) Error() string { return Line(e.error.Error()) }
func (e lineError) Unwrap() error { return e.error }
