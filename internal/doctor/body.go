package doctor

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"html"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/simplifiedchinese"

	"upcall/internal/admission"
)

const byteOrderMark = "\xef\xbb\xbf"

// bodySteps undo what proxies, frameworks and editors do to a body. length is what
// Content-Length says, or -1.
func bodySteps(length int) []step {
	return []step{
		once(BodyLonger, func(b string) string {
			if length >= 0 && length < len(b) {
				return b[:length]
			}
			return b
		}),
		{BodyNewlineAdded, func(b string) []string {
			return []string{strings.TrimSuffix(strings.TrimSuffix(b, "\n"), "\r"), strings.TrimRight(b, "\r\n")}
		}},
		{BodyNewlineRemoved, func(b string) []string { return []string{b + "\n", b + "\r\n"} }},
		{BodyLeadingNewline, func(b string) []string {
			return []string{strings.TrimPrefix(strings.TrimPrefix(b, "\r"), "\n"), strings.TrimLeft(b, "\r\n")}
		}},
		once(BodyBOMAdded, func(b string) string { return strings.TrimPrefix(b, byteOrderMark) }),
		{BodyLineEndings, func(b string) []string {
			lf := strings.ReplaceAll(strings.ReplaceAll(b, "\r\n", "\n"), "\r", "\n")
			return []string{strings.ReplaceAll(b, "\r\n", "\n"), lf, strings.ReplaceAll(lf, "\n", "\r\n")}
		}},
		once(BodyWhitespace, strings.TrimSpace),
		once(BodyNUL, func(b string) string { return strings.TrimRight(b, "\x00") }),
		{BodyChunked, func(b string) []string {
			if whole, ok := dechunk([]byte(b)); ok {
				return []string{string(whole)}
			}
			return nil
		}},
		{BodyCompressed, gunzip},
		{BodyReencoded, respellForm},
		{BodyFormAsJSON, formOfJSON},
		{BodyJSONRewritten, rewriteJSON},
		{BodyQuoted, unquote},
		once(BodyEntities, html.UnescapeString),
		{BodyCharset, recode},
		{BodyReordered, reorderBody},
		{BodyFieldAdded, func(b string) []string {
			if isJSON(b) {
				return nil
			}
			return without(b)
		}},
		once(BodyBOMRemoved, func(b string) string { return byteOrderMark + b }),
		{BodyCutShort, func(b string) []string { return oneByteMore(b, length) }},
		once(BodyAdded, func(string) string { return "" }),
	}
}

func isJSON(b string) bool { return strings.HasPrefix(strings.TrimLeft(b, " \t\r\n"), "{") }

func respellForm(b string) []string {
	if isJSON(b) {
		return nil
	}
	return respell(b)
}

func reorderBody(b string) []string {
	if isJSON(b) {
		return reorderJSON(b)
	}
	return reorder(b)
}

// gunzip unpacks a body that was compressed on the way, if it fits what a capture may be.
func gunzip(b string) []string {
	in, err := gzip.NewReader(strings.NewReader(b))
	if err != nil {
		return nil
	}
	// Limited, as a few bytes may unpack to any number.
	whole, err := io.ReadAll(io.LimitReader(in, admission.MaxBody+1))
	if err != nil || len(whole) > admission.MaxBody {
		return nil
	}
	return []string{string(whole)}
}

// unquote undoes what logs do to a body: quotes around it, or backslashes in it.
func unquote(b string) []string {
	text := strings.TrimSpace(b)
	var out []string
	if len(text) > 1 && (text[0] == '"' || text[0] == '\'') && text[len(text)-1] == text[0] {
		out = append(out, text[1:len(text)-1])
	}
	var plain string
	if json.Unmarshal([]byte(text), &plain) == nil {
		out = append(out, plain)
	}
	if s, err := strconv.Unquote(`"` + text + `"`); err == nil {
		out = append(out, s)
	}
	return out
}

var charsets = []encoding.Encoding{simplifiedchinese.GB18030, simplifiedchinese.GBK, charmap.ISO8859_1, charmap.Windows1252}

// recode undoes a change of charset, in the text itself and in percent escapes: from
// UTF-8 to another, or UTF-8 taken for another and made UTF-8 again.
func recode(b string) []string {
	var out []string
	changes := make([]func(string) string, 0, 2*len(charsets))
	for _, charset := range charsets {
		changes = append(changes,
			func(s string) string {
				if utf8.ValidString(s) {
					return s
				}
				if text, err := charset.NewDecoder().String(s); err == nil && !strings.ContainsRune(text, utf8.RuneError) {
					return text
				}
				return s
			},
			func(s string) string {
				if bytes, err := charset.NewEncoder().String(s); err == nil && utf8.ValidString(bytes) {
					return bytes
				}
				return s
			})
	}
	for _, change := range changes {
		out = append(out, change(b))
		if !isJSON(b) && strings.Contains(b, "%") {
			for _, spelling := range spellings[:2] {
				out = append(out, eachHalf(b, func(half string) string {
					return escape(change(decode(half, true)), spelling.kept, spelling.space)
				}))
			}
		}
	}
	return out
}

// oneByteMore returns a body that was cut by one byte with each byte that may have been
// there; with more missing there is no telling.
func oneByteMore(b string, length int) []string {
	if length >= 0 && length != len(b)+1 {
		return nil
	}
	out := make([]string, 0, 0x7f-' ')
	for c := byte(' '); c < 0x7f; c++ {
		out = append(out, b+string(c))
	}
	return out
}

// field is a member of a JSON object, its value as it stands.
type field struct {
	name  string
	value json.RawMessage
}

// fieldsOf returns the members of a JSON object in their order.
func fieldsOf(b string) ([]field, bool) {
	in := json.NewDecoder(strings.NewReader(b))
	if open, err := in.Token(); err != nil || open != json.Delim('{') {
		return nil, false
	}
	var fields []field
	for in.More() {
		name, err := in.Token()
		if err != nil {
			return nil, false
		}
		var value json.RawMessage
		if err := in.Decode(&value); err != nil {
			return nil, false
		}
		fields = append(fields, field{name.(string), value})
	}
	if _, err := in.Token(); err != nil {
		return nil, false
	}
	rest, err := io.ReadAll(in.Buffered())
	return fields, err == nil && len(bytes.TrimSpace(rest)) == 0
}

// formOfJSON undoes a framework that parsed a form and wrote it as JSON.
func formOfJSON(b string) []string {
	fields, ok := fieldsOf(b)
	if !ok {
		return nil
	}
	out := make([]string, len(spellings))
	for i, spelling := range spellings {
		pairs := make([]string, len(fields))
		for j, f := range fields {
			text := string(f.value)
			var plain string
			if json.Unmarshal(f.value, &plain) == nil { // null is "", too
				text = plain
			}
			pairs[j] = escape(f.name, spelling.kept, spelling.space) + "=" + escape(text, spelling.kept, spelling.space)
		}
		out[i] = strings.Join(pairs, "&")
	}
	return out
}

var (
	quotedNumber = regexp.MustCompile(`^"-?(0|[1-9][0-9]{0,18})"$`)
	bareNumber   = regexp.MustCompile(`^-?[0-9]+$`)
)
