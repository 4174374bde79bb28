package callbackspec

import (
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"upcall/internal/fault"
)

// PostgreSQL's jsonb accepts less than JSON allows: its parser is recursive, and its
// numbers have a limit. OSS itself sends none so deep or so long.
const (
	maxDepth  = 64
	maxNumber = 1000 // digits, and the absolute value of an exponent
)

// A scanner walks over JSON that encoding/json accepts, and refuses what jsonb cannot hold
// or would change.
type scanner struct {
	doc string
	at  int
}

// EachMember calls each for every member of the JSON object doc, in order, with the
// value as written. It refuses invalid UTF-8, duplicate names (one reader takes the
// first, another the last), NUL, halves of surrogate pairs, numbers and depths beyond
// the limits, and anything after the object.
func EachMember(doc []byte, each func(name, value string) error) error {
	s, err := newScanner(doc)
	switch {
	case err != nil:
		return err
	case s.doc[s.at] != '{':
		return errors.New("it is a JSON " + kindOf(s.doc[s.at:]))
	}
	return s.object(1, each)
}

// newScanner returns a scanner at the first byte of a JSON document. The error says why doc is
// not valid JSON.
func newScanner(doc []byte) (*scanner, error) {
	if !utf8.Valid(doc) {
		return nil, errors.New("it is not UTF-8")
	}
	if !json.Valid(doc) {
		var discard json.RawMessage
		return nil, json.Unmarshal(doc, &discard) // says where it is wrong
	}
	s := &scanner{doc: string(doc)}
	s.space()
	return s, nil
}

func (s *scanner) space() {
	for s.at < len(s.doc) && strings.IndexByte(" \t\r\n", s.doc[s.at]) >= 0 {
		s.at++
	}
}

// value steps over the value that starts here.
func (s *scanner) value(depth int) error {
	switch s.doc[s.at] {
	case '{':
		return s.object(depth+1, nil)
	case '[':
		return s.items(depth+1, ']', func() error { return s.value(depth + 1) })
	case '"':
		_, err := s.text()
		return err
	}
	start := s.at
	for s.at < len(s.doc) && strings.IndexByte(",]} \t\r\n", s.doc[s.at]) < 0 {
		s.at++
	}
	return checkNumber(s.doc[start:s.at])
}

func (s *scanner) object(depth int, each func(name, value string) error) error {
	names := make([]string, 0, 24)
	err := s.items(depth, '}', func() error {
		quoted, err := s.text()
		if err != nil {
			return err
		}
		name := unquote(quoted)
		names = append(names, name)
		s.space()
		s.at++ // the colon
		s.space()
		start := s.at
		if err := s.value(depth); err != nil || each == nil {
			return err
		}
		return each(name, s.doc[start:s.at])
	})
	if err != nil {
		return err
	}
	slices.Sort(names)
	for i := range len(names) - 1 {
		if names[i] == names[i+1] {
			return errors.New("field " + fault.Name(names[i]) + " appears twice")
		}
	}
	return nil
}

// items calls item at each member or element, up to the end of the object or array that
// starts here.
func (s *scanner) items(depth int, end byte, item func() error) error {
	if depth > maxDepth {
		return errors.New("it is nested too deep")
	}
	s.at++
	for s.space(); s.doc[s.at] != end; s.space() {
		if s.doc[s.at] == ',' {
			s.at++
			s.space()
		}
		if err := item(); err != nil {
			return err
		}
	}
	s.at++
	return nil
}

// text steps over a string and returns it with its quotes.
func (s *scanner) text() (string, error) {
	quoted := s.doc[s.at:][:stringEnd(s.doc[s.at:])]
	s.at += len(quoted)
	return quoted, checkEscapes(quoted)
}

// stringEnd returns the length of the JSON string that s starts with, or len(s) if it
// has no end.
func stringEnd(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return i + 1
		case '\\':
			i++
		}
	}
	return len(s)
}

// checkEscapes refuses \u0000 and halves of surrogate pairs.
func checkEscapes(quoted string) error {
	for rest := quoted; ; {
		i := strings.IndexByte(rest, '\\')
		if i < 0 {
			return nil
		}
		r, size := escaped(rest[i:])
		low, lowSize := escaped(rest[i+size:])
		switch {
		case r == 0:
			return errors.New("it holds NUL")
		case !utf16.IsSurrogate(r):
			rest = rest[i+size:]
		case utf16.DecodeRune(r, low) == utf8.RuneError:
			return errors.New("it holds half of a surrogate pair")
		default:
			rest = rest[i+size+lowSize:]
		}
	}
}

// escaped returns the rune of the \uXXXX at the start of s, or -1 for another escape or
// none, and the length of the escape.
func escaped(s string) (r rune, size int) {
	if !strings.HasPrefix(s, `\u`) {
		return -1, min(2, len(s))
	}
	n, _ := strconv.ParseUint(s[2:6], 16, 16) // valid JSON has four hex digits here
	return rune(n), 6
}

// checkNumber refuses numbers that jsonb cannot hold; true, false and null pass.
func checkNumber(literal string) error {
	switch literal {
	case "true", "false", "null":
		return nil
	}
	mantissa, exponent := literal, "0"
	if i := strings.IndexAny(literal, "eE"); i >= 0 {
		mantissa, exponent = literal[:i], literal[i+1:]
	}
	n, err := strconv.Atoi(exponent)
	if err != nil || len(mantissa) > maxNumber || max(n, -n) > maxNumber {
		return errors.New("it holds a number that is out of range")
	}
	return nil
}

// unquote returns the text of a valid JSON string.
func unquote(quoted string) string {
	if !strings.Contains(quoted, `\`) {
		return quoted[1 : len(quoted)-1]
	}
	var text string
	_ = json.Unmarshal([]byte(quoted), &text) // the scanner has accepted it
	return text
}

// quote returns text as a JSON string.
func quote(text string) json.RawMessage {
	return AppendQuoted(make(json.RawMessage, 0, len(text)+2), text)
}

// AppendQuoted appends text as a JSON string, with &, < and > as they are.
func AppendQuoted(doc []byte, text string) []byte {
	return append(appendEscaped(append(doc, '"'), text), '"')
}

// appendEscaped appends text as it is between the quotes of a JSON string. Most text needs
// no escape, and encoding/json takes ten times as long to find that out.
func appendEscaped(doc []byte, text string) []byte {
	for i := range len(text) {
		if !plain[text[i]] {
			quoted := marshal(text)
			return append(doc, quoted[1:len(quoted)-1]...)
		}
	}
	return append(doc, text...)
}

// plain are the bytes that need no escape in a JSON string.
var plain = func() (table [256]bool) {
	for c := byte(' '); c < 0x7f; c++ {
		table[c] = c != '"' && c != '\\'
	}
	return table
}()

// Storable reports whether PostgreSQL can hold s as text.
func Storable(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }
