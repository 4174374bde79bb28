package doctor

import (
	"compress/gzip"
	"compress/zlib"
	"encoding/json"
	"html"
	"io"
	"strconv"
	"strings"

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
		{BodyCompressed, decompress},
		{BodyReencoded, onForm(respell)},
		{BodyFormAsJSON, keyOfBody},
		{BodyFormAsJSON, formOfJSON},
		{BodyBase64, decodeBase64},
		{BodyWrapped, unwrap},
		{BodyBytes, decodeBytes},
		{BodyJSONRewritten, rewriteJSON},
		{BodyQuoted, unquote},
		{BodyEntities, func(b string) []string {
			return []string{html.UnescapeString(b), html.UnescapeString(html.UnescapeString(b))}
		}},
		{BodyCharset, recode},
		{BodyNormalized, normalize},
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

// decompress undoes gzip and deflate: it decompresses a body that was compressed on the way, unless it is too large for a
// callback.
func decompress(b string) []string {
	var in io.Reader
	var err error
	if in, err = gzip.NewReader(strings.NewReader(b)); err != nil {
		if in, err = zlib.NewReader(strings.NewReader(b)); err != nil {
			return nil
		}
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
	if plain, quoted := unprint(strings.TrimPrefix(text, "b")); quoted && strings.HasPrefix(text, "b") { // Python's bytes
		out = append(out, plain)
	}
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
