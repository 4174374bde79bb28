package fault

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// most is how many bytes of a user's text a mistake shows.
const most = 80

// Short truncates a long text, without splitting a character.
func Short(text string) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// Quote quotes a text so that it is safe and short enough for one line.
func Quote(text string) string { return strconv.Quote(Short(text)) }

// Name makes a name safe and short enough for one line, without quotes: unprintable
// characters become question marks.
func Name(text string) string {
	return Short(strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, text))
}

// Readable quotes a text that would move a terminal's cursor or break a table. It returns
// any other text unchanged.
func Readable(text string) string {
	if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return strconv.Quote(text)
	}
	return text
}

// Line turns a text, such as a server's answer, into one line: line breaks and characters
// that move a terminal's cursor become spaces.
func Line(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || !strconv.IsPrint(r) }), " ")
}

// OneLine returns err with its text on one line. An error of pgx, for example, has a line
// for each address that cannot be reached.
func OneLine(err error) error { return lineError{err} }

type lineError struct{ error }

func (e lineError) Error() string { return Line(e.error.Error()) }
func (e lineError) Unwrap() error { return e.error }
