package doctor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf16"

	"upcall/internal/callbackspec"
)

// A field is a member of a JSON object, with its value as written.
type field struct{ name, value string }

// fieldsOf returns the members of a JSON object in their order, or nil.
func fieldsOf(b string) []field {
	var fields []field
	err := callbackspec.EachMember([]byte(b), func(name, value string) error {
		fields = append(fields, field{name, value})
		return nil
	})
	if err != nil {
		return nil
	}
	return fields
}

// formOfJSON undoes a framework that parsed a form and wrote it as JSON.
func formOfJSON(b string) []string {
	fields := fieldsOf(b)
	if fields == nil {
		return nil
	}
	var out []string
	for _, spell := range spellings {
		pairs := make([]string, len(fields))
		for i, f := range fields {
			text := f.value
			var plain string
			if json.Unmarshal([]byte(f.value), &plain) == nil { // null is "", too
				text = plain
			}
			pairs[i] = spell(f.name) + "=" + spell(text)
		}
		out = append(out, strings.Join(pairs, "&"))
	}
	return out
}

// A layout is how a program writes JSON: what follows a comma, what follows a colon, and
// the indent of a line.
type layout struct{ comma, colon, indent string }

var layouts = []layout{
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

// retypings are what programs do to values: nothing, turn text into numbers, or turn
// numbers into text.
var retypings = []struct {
	from *regexp.Regexp
	to   string
}{
	{regexp.MustCompile(`^$`), ""}, // matches nothing: no value is empty
	{regexp.MustCompile(`^"(-?(?:0|[1-9][0-9]{0,18}))"$`), "$1"},
	{regexp.MustCompile(`^-?[0-9]+$`), `"$0"`},
}

// rewriteJSON returns a JSON object as other programs would have written it, with its
// members in the same order.
func rewriteJSON(b string) []string {
	fields := fieldsOf(b)
	if fields == nil {
		return nil
	}
	var out []string
	for _, retyping := range retypings {
		changed := make([]field, len(fields))
		for i, f := range fields {
			changed[i] = field{f.name, retyping.from.ReplaceAllString(f.value, retyping.to)}
		}
		for _, quote := range escapings {
			for _, l := range layouts {
				out = append(out, writeJSON(changed, quote, l))
			}
		}
	}
	return out
}

func writeJSON(fields []field, quote func(string) string, l layout) string {
	start := ""
	if l.indent != "" {
		start = "\n" + l.indent
	}
	members := make([]string, len(fields))
	for i, f := range fields {
		members[i] = start + quote(f.name) + ":" + l.colon + writeValue(f.value, quote)
	}
	return "{" + strings.Join(members, ","+l.comma) + strings.TrimSuffix(start, l.indent) + "}"
}

func writeValue(value string, quote func(string) string) string {
	var text string
	if value[0] == '"' && json.Unmarshal([]byte(value), &text) == nil {
		return quote(text)
	}
	var compact bytes.Buffer
	if json.Compact(&compact, []byte(value)) != nil {
		return value
	}
	return compact.String()
}

// quoteJSON writes a JSON string. ascii escapes what is not ASCII; a slash in escaped
// is written \/, and any other character in it as \u and four digits.
func quoteJSON(s string, ascii bool, escaped string) string {
	var out strings.Builder
	for _, r := range string(callbackspec.AppendQuoted(nil, s)) {
		switch {
		case r == '/' && escaped == "/":
			out.WriteString(`\/`)
		case ascii && r > 0x7e || strings.ContainsRune(escaped, r):
			for _, unit := range utf16.Encode([]rune{r}) {
				fmt.Fprintf(&out, `\u%04x`, unit)
			}
		default:
			out.WriteRune(r)
		}
	}
	return out.String()
}

// withoutMember returns a JSON object with one member less, compact.
func withoutMember(b string) (fewer []string) {
	fields := fieldsOf(b)
	if len(fields) > maxMembers {
		return nil
	}
	for i := range slices.Backward(fields) {
		fewer = append(fewer, writeJSON(slices.Delete(slices.Clone(fields), i, i+1), escapings[0], layouts[0]))
	}
	return fewer
}

// reorderJSON returns a JSON object with its members in other orders, compact.
func reorderJSON(b string) []string {
	join := func(fields []field) string {
		members := make([]string, len(fields))
		for i, f := range fields {
			members[i] = quoteJSON(f.name, false, "") + ":" + f.value
		}
		return "{" + strings.Join(members, ",") + "}"
	}
	return reorderAll(fieldsOf(b), join, func(f field) string { return f.name })
}
