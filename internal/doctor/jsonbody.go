package doctor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf16"
)

// layouts are how programs write JSON, when not compact: what stands after a comma, what
// after a colon, and the indent of a line.
var layouts = []struct{ comma, colon, indent string }{
	{"", "", ""},
	{" ", " ", ""}, // Python's json.dumps
	{"", " ", ""},
	{" ", "", ""},
	{"", " ", "  "},   // JavaScript's JSON.stringify(…, 2), Go's MarshalIndent
	{"", " ", "    "}, // PHP's JSON_PRETTY_PRINT
	{"", " ", "\t"},
}

// escapings are how programs write the text in JSON.
var escapings = []func(string) string{
	func(s string) string { return quoteJSON(s, false, "") },
	func(s string) string { return quoteJSON(s, true, "") },     // Python
	func(s string) string { return quoteJSON(s, true, "/") },    // PHP
	func(s string) string { return quoteJSON(s, false, "/") },   // PHP with JSON_UNESCAPED_UNICODE
	func(s string) string { return quoteJSON(s, false, "<>&") }, // Go
}

// rewriteJSON returns a JSON object as other programs would have written it, its
// members in the order they stand.
func rewriteJSON(b string) []string {
	fields, ok := fieldsOf(b)
	if !ok {
		return nil
	}
	var out []string
	for _, change := range []func(json.RawMessage) json.RawMessage{
		func(v json.RawMessage) json.RawMessage { return v },
		func(v json.RawMessage) json.RawMessage {
			if quotedNumber.Match(v) {
				return v[1 : len(v)-1]
			}
			return v
		},
		func(v json.RawMessage) json.RawMessage {
			if bareNumber.Match(v) {
				return json.RawMessage(`"` + string(v) + `"`)
			}
			return v
		},
	} {
		changed := make([]field, len(fields))
		for i, f := range fields {
			changed[i] = field{f.name, change(f.value)}
		}
		for _, quote := range escapings {
			for _, l := range layouts {
				out = append(out, writeJSON(changed, quote, l.comma, l.colon, l.indent))
			}
		}
	}
	return out
}

func writeJSON(fields []field, quote func(string) string, comma, colon, indent string) string {
	var out strings.Builder
	out.WriteByte('{')
	for i, f := range fields {
		if i > 0 {
			out.WriteString("," + comma)
		}
		if indent != "" {
			out.WriteString("\n" + indent)
		}
		out.WriteString(quote(f.name) + ":" + colon + writeValue(f.value, quote))
	}
	if indent != "" && len(fields) > 0 {
		out.WriteByte('\n')
	}
	out.WriteByte('}')
	return out.String()
}

func writeValue(value json.RawMessage, quote func(string) string) string {
	var text string
	if value[0] == '"' && json.Unmarshal(value, &text) == nil {
		return quote(text)
	}
	var compact bytes.Buffer
	if json.Compact(&compact, value) != nil {
		return string(value)
	}
	return compact.String()
}

// quoteJSON writes a JSON string. ascii escapes what is not ASCII; a slash in escaped
// is written \/, another character of it as \u and four digits.
func quoteJSON(s string, ascii bool, escaped string) string {
	var out strings.Builder
	out.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\' || r == '/' && strings.Contains(escaped, "/"):
			out.WriteByte('\\')
			out.WriteRune(r)
		case strings.IndexByte("\n\r\t\b\f", byte(min(r, 0x7f))) >= 0:
			out.WriteString(map[rune]string{'\n': `\n`, '\r': `\r`, '\t': `\t`, '\b': `\b`, '\f': `\f`}[r])
		case r < ' ' || ascii && r > 0x7e && r <= 0xffff || strings.ContainsRune(escaped, r):
			fmt.Fprintf(&out, `\u%04x`, r)
		case ascii && r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&out, `\u%04x\u%04x`, high, low)
		default:
			out.WriteRune(r)
		}
	}
	out.WriteByte('"')
	return out.String()
}

// reorderJSON returns a JSON object with its members in other orders, compact.
func reorderJSON(b string) []string {
	fields, ok := fieldsOf(b)
	if !ok {
		return nil
	}
	byText := make(map[string]string, len(fields)) // member as text: its name
	items := make([]string, len(fields))
	for i, f := range fields {
		name, err := json.Marshal(f.name)
		if err != nil {
			return nil
		}
		items[i] = string(name) + ":" + string(f.value)
		byText[items[i]] = f.name
	}
	return reorderAll(items,
		func(items []string) string { return "{" + strings.Join(items, ",") + "}" },
		func(item string) string { return byText[item] })
}
