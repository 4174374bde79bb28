package doctor

import (
	"compress/gzip"
	"encoding/json"
	"html"
	"io"
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
		once(BodyChunked, func(b string) string {
			whole, _ := dechunk([]byte(b))
			return string(whole)
		}),
		{BodyCompressed, gunzip},
		{BodyReencoded, onForm(respell)},
		{BodyFormAsJSON, keyOfBody},
		{BodyFormAsJSON, formOfJSON},
		{BodyBase64, decodeBase64},
		{BodyWrapped, unwrap},
		{BodyJSONRewritten, rewriteJSON},
		{BodyQuoted, unquote},
		once(BodyEntities, html.UnescapeString),
		{BodyCharset, recode},
		{BodyReordered, onForm(reorder)},
		{BodyReordered, reorderJSON},
		{BodyFieldAdded, onForm(without)},
		{BodyFieldAdded, withoutMember},
		once(BodyBOMRemoved, func(b string) string { return byteOrderMark + b }),
		{BodyCutShort, func(b string) []string { return oneByteMore(b, length) }},
		once(BodyAdded, func(string) string { return "" }),
	}
}

func isJSON(b string) bool { return strings.HasPrefix(strings.TrimLeft(b, " \t\r\n"), "{") }

// onForm limits a step to forms.
func onForm(undo func(string) []string) func(string) []string {
	return func(b string) []string {
		if isJSON(b) {
			return nil
		}
		return undo(b)
	}
}

// gunzip decompresses a body that was compressed on the way, unless it is too large for a
// callback.
func gunzip(b string) []string {
	in, err := gzip.NewReader(strings.NewReader(b))
	if err != nil {
		return nil
	}
	// Limited, because a few bytes may decompress to any number.
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

var charsets = []encoding.Encoding{
	simplifiedchinese.GB18030, simplifiedchinese.GBK, charmap.ISO8859_1, charmap.Windows1252,
}

// recode undoes a change of charset, in the text itself and in percent escapes: from
// UTF-8 to another, or from UTF-8 that was read as another.
func recode(b string) []string {
	var out []string
	for _, charset := range charsets {
		change := func(s string) string {
			convert := charset.NewDecoder().String
			if utf8.ValidString(s) {
				convert = charset.NewEncoder().String
			}
			changed, err := convert(s)
			if err != nil || !utf8.ValidString(changed) || strings.ContainsRune(changed, utf8.RuneError) {
				return s
			}
			return changed
		}
		out = append(out, change(b))
		if !isJSON(b) && strings.Contains(b, "%") {
			for _, spell := range spellings[:2] {
				out = append(out, eachHalf(b, func(half string) string { return spell(change(decodeForm(half))) }))
			}
		}
	}
	return out
}

// oneByteMore returns a body without its last byte with each byte that may have been
// there. If more is missing, it cannot be guessed.
func oneByteMore(b string, length int) []string {
	if length >= 0 && length != len(b)+1 {
		return nil
	}
	var out []string
	for c := byte(' '); c < 0x7f; c++ {
		out = append(out, b+string(c))
	}
	return out
}
