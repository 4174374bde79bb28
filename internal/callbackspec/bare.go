package callbackspec

import (
	"net/url"
	"strings"
	"unicode/utf8"
)

// quoteBare puts quotes around the bare values of a JSON-shaped body whose type is that of a
// form. Such a body comes from a JSON template whose callbackBodyType was forgotten: OSS fills
// it in as a form, so that {"object":${object},"vpcId":${vpcId}} becomes
// {"object":a%2Fb.txt,"vpcId":}. What OSS fills in is text, even if it looks like a number or
// like null: an uploader may choose such an object key.
//
// A value ends at the next comma or closing bracket. OSS percent-encodes these, as well as
// quotes, so an uploader's object key or variable cannot end its value and begin another field.
// A body with anything else where a value must stand is returned as it is, for the parser of
// JSON to refuse.
func quoteBare(body []byte) []byte {
	if !utf8.Valid(body) {
		return body
	}
	text := string(body)
	out := make([]byte, 0, len(text)+64)
	var open []byte // brackets
	valueNext := false
	for text != "" {
		rest := strings.TrimLeft(text, blanks)
		out, text = append(out, text[:len(text)-len(rest)]...), rest
		n := 1
		switch {
		case text == "":
			return out
		case text[0] == '"':
			n, valueNext = stringEnd(text), false
		case text[0] == '{', text[0] == '[':
			open = append(open, text[0])
			valueNext = text[0] == '[' && !strings.HasPrefix(strings.TrimLeft(text[1:], blanks), "]")
		case valueNext:
			if n = strings.IndexAny(text, `,}]`); n < 0 {
				n = len(text)
			}
			if strings.ContainsAny(text[:n], `"{[\`) {
				return body
			}
			out = AppendQuoted(out, strings.TrimRight(text[:n], blanks))
			text, valueNext = text[n:], false
			continue
		case text[0] == ':':
			valueNext = true
		case text[0] == ',':
			valueNext = len(open) > 0 && open[len(open)-1] == '['
		case strings.IndexByte("}]", text[0]) >= 0 && len(open) > 0:
			open = open[:len(open)-1]
		}
		out, text = append(out, text[:n]...), text[n:]
	}
	return out
}

// decodeTexts returns a valid JSON value with the texts in it percent-decoded. Names are
// constants of the template, and stay as written.
func decodeTexts(value string) []byte {
	out := make([]byte, 0, len(value))
	for {
		start := strings.IndexByte(value, '"')
		if start < 0 {
			return append(out, value...)
		}
		end := start + stringEnd(value[start:])
		quoted, rest := value[start:end], value[end:]
		text, err := url.QueryUnescape(unquote(quoted))
		if err != nil || !Storable(text) || strings.HasPrefix(strings.TrimLeft(rest, blanks), ":") {
			text = unquote(quoted)
		}
		out, value = AppendQuoted(append(out, value[:start]...), text), rest
	}
}
