package callbackspec

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"upcall/internal/fault"
)

// What to do about mistakes in templates.
const (
	anyTemplate   = `write a template such as {"object":${object}} for JSON, or object=${object} for a form`
	plainTemplate = "give OSS the template as it is, not percent-encoded"
	plainQuotes   = `the quotes are escaped (\"): write them plain, as in {"object":${object}}`
	noQuotes      = "in a JSON body write ${object} without quotes around it: OSS adds them"
	useJSONType   = "use json (callbackBodyType application/json, issuer put --callback-body-type json)"
	notJSONType   = "the template is JSON, but callbackBodyType is not"
	noMark        = "leave out the byte order mark at the beginning"
	usePlain      = `use the plain characters " : , { and }`
	commaBetween  = "write a comma between two fields"
	formType      = "use callbackBodyType application/x-www-form-urlencoded; if it is that, have the proxy pass Content-Type on unchanged"
	besideText    = "write each variable without quotes around it and without text beside it"
)

// fullWidth are characters that input methods and word processors write in place of those
// of JSON.
const fullWidth = "“”„‟‘’＂＇：；，｛｝［］\ufeff\u00a0\u3000"

// jsonAdvice says what to change in a template that makes a body that is not JSON.
func jsonAdvice(body []byte, err error) string {
	text := strings.TrimLeft(string(body), blanks)
	if strings.HasPrefix(strings.TrimLeft(strings.TrimPrefix(text, "{"), blanks), `\`) {
		return plainQuotes
	}
	syntax, ok := errors.AsType[*json.SyntaxError](err)
	if !ok || syntax.Offset < 1 || syntax.Offset > int64(len(body)) {
		return scannerAdvice(err)
	}
	is := func(what string) bool { return strings.Contains(syntax.Error(), what) }
	at := body[syntax.Offset-1]
	before := strings.TrimRight(string(body[:syntax.Offset-1]), blanks)
	rest := string(body[syntax.Offset-1:])
	pair := is("after object key:value pair")
	switch {
	case is("unexpected end"):
		return "end each text with a quote, and the template with }"
	case strings.IndexAny(rest, fullWidth) == 0:
		return usePlain
	case strings.HasPrefix(rest, "//"), strings.HasPrefix(rest, "/*"), at == '#':
		return "leave out the comments"
	case strings.HasPrefix(rest, "&quot;"), strings.HasPrefix(rest, "&#34;"):
		return `the template is HTML-escaped: write " in place of ` + rest[:strings.IndexByte(rest, ';')+1]
	case pair && at == ';':
		return commaBetween
	case pair && at != '"' && strings.HasSuffix(before, `"`), is("after array element") && strings.HasSuffix(before, `"`):
		return noQuotes
	case at == '\\':
		return plainQuotes
	case at >= 0x80:
		return usePlain
	case at == '\'':
		return "put names and text into double quotes"
	case is("after top-level value"):
		return "write nothing after the } at the end"
	case is("object key string") && at == '}', is("beginning of value") && at == ']':
		return "leave out the comma before " + rest[:1]
	case is("object key string") && at == '{':
		return "write one {, not two"
	case is("object key string"):
		return "put each name into double quotes"
	case pair && at == '"' && !strings.HasPrefix(strings.TrimLeft(rest[stringEnd(rest):], blanks), ":"):
		return besideText
	case pair:
		return commaBetween
	case is("after object key"):
		return "write a colon between a name and its value"
	case is("after array element"):
		return "write a comma between two values"
	case is("beginning of value") && notJSONWord(rest):
		return "JSON has true, false and null, in lower case, and no other words"
	case is("looking for beginning of value"):
		return "give each name a value: a variable, a number, or text in double quotes"
	case is("in string literal") && at == '\t':
		return `write a tab in a text as \t`
	case is("in string literal"):
		return `write a line break in a text as \n`
	case is("in string escape"):
		return `write a backslash in a text as \\`
	}
	return anyTemplate
}

// jsonProblem is the text of an error about JSON. Of a character that is not ASCII,
// encoding/json names only the first byte.
func jsonProblem(body []byte, err error) string {
	syntax, ok := errors.AsType[*json.SyntaxError](err)
	if !ok || syntax.Offset < 1 || syntax.Offset > int64(len(body)) || body[syntax.Offset-1] < 0x80 {
		return err.Error()
	}
	first, all := rune(body[syntax.Offset-1]), body[syntax.Offset-1:]
	char, _ := utf8.DecodeRune(all)
	return strings.Replace(err.Error(), strconv.QuoteRune(first), strconv.QuoteRune(char), 1)
}

// notJSONWord reports whether a text begins with a word, which other languages have for a value.
func notJSONWord(text string) bool {
	for _, word := range []string{"true", "false", "null", "none", "nil", "nan", "infinity", "undefined"} {
		if len(text) >= len(word) && strings.EqualFold(text[:len(word)], word) {
			return true
		}
	}
	return false
}

// shapeAdvice is for the body of a template that is neither JSON nor pairs.
func shapeAdvice(body string) string {
	body = strings.TrimLeft(body, blanks)
	switch {
	case strings.HasPrefix(body, byteOrderMark):
		return noMark
	case strings.HasPrefix(body, "%7B"), strings.HasPrefix(body, "%7b"):
		return plainTemplate
	case strings.IndexAny(body, "\"'") == 0 && strings.HasPrefix(strings.TrimLeft(body[1:], blanks+`\`), "{"):
		return "leave out the quotes around the template"
	case strings.HasPrefix(body, "//"), strings.HasPrefix(body, "/*"):
		return "leave out the comments"
	}
	return anyTemplate
}

// scannerAdvice is for JSON that the scanner refuses.
func scannerAdvice(err error) string {
	if strings.HasSuffix(err.Error(), "appears twice") {
		return "name each field once"
	}
	return "let the template hold only UTF-8 text without NUL, and numbers and depths of ordinary size"
}

// Oddities says what is odd about the template of a body that [Parse] accepts.
func Oddities(contentType string, body []byte) []string {
	t, err := bodyType(contentType)
	if err != nil {
		return nil
	}
	switch {
	case lacksType(contentType, body):
		return []string{notJSONType + ", so OSS fills it in as a form: " + useJSONType}
	case strings.HasPrefix(strings.TrimLeft(string(body), blanks), "{"):
		return nil
	case t == JSON:
		return []string{"the template is name=value pairs, but callbackBodyType is application/json: use form, or write a JSON object"}
	}
	var odd []string
	if bytes.HasPrefix(body, []byte(byteOrderMark)) {
		odd = append(odd, "a byte order mark of the template is at the beginning, and is ignored")
	}
	for pair := range strings.SplitSeq(string(body), "&") {
		odd = append(odd, pairOddities(pair)...)
	}
	return odd
}

// pairOddities is about one field of a form. OSS encodes in a value whatever is special here, so
// it comes from the template.
func pairOddities(pair string) (odd []string) {
	rawName, rawValue, _ := strings.Cut(pair, "=")
	name, value := strings.Trim(rawName, blanks), strings.Trim(rawValue, blanks)
	if name != rawName || value != rawValue {
		odd = append(odd, "a line break, tab or space of the template is around field "+fault.Name(name)+", and is ignored")
	}
	if variable := hiddenVariable(value); variable != "" && strings.Contains(value, "{"+variable+"}") {
		odd = append(odd, "field "+fault.Name(name)+" holds {"+variable+"}: the template lacks the $ before it")
	}
	if len(value) > 1 && strings.HasPrefix(value, `"`) && strings.HasSuffix(value, `"`) {
		odd = append(odd, "the template has quotes around field "+fault.Name(name)+": a form needs none, and they are part of the value")
	}
	if after, escaped := strings.CutPrefix(name, "amp;"); escaped {
		odd = append(odd, "the template writes &amp; for the & before "+fault.Name(after)+", so that the field has another name")
	}
	return odd
}

// sample is a value as OSS fills it in.
func sample(variable string) string {
	switch {
	case numeric(variable):
		return "1"
	case variable == "clientIp":
		return "203.0.113.1"
	}
	return "v" + variable
}

// CheckBody returns a [fault.Fault] if every callback of a template would be refused,
// because the body that OSS makes of it cannot be parsed, or if OSS would not fill it in.
// A receiver may read a variable in a field of any name. So the field with the variable's own
// name is checked unless the template has the variable in another.
func CheckBody(body string, t BodyType) error {
	pieces, err := parseTemplate(body)
	if err != nil {
		return err
	}
	if strings.HasPrefix(body, byteOrderMark) {
		return wrongTemplate(noMark, "begins with a byte order mark")
	}
	pairs, separators := true, "&"
	if strings.HasPrefix(body, "?") {
		return wrongTemplate("leave out the ? at the beginning", "begins as a query does")
	}
	if strings.HasPrefix(strings.TrimLeft(body, blanks), "{") {
		pairs, separators = false, ",{"
	}
	values, fields := make(Values), maps.Clone(identity)
	var own []string // variables in fields of their own names
	field := ""      // up to here
	for _, p := range pieces {
		if err := checkConstant(p.constant, pairs); err != nil {
			return err
		}
		values[p.variable] = sample(p.variable)
		if field += p.constant; strings.ContainsAny(p.constant, separators) {
			field = p.constant[strings.LastIndexAny(p.constant, separators)+1:]
		}
		switch {
		case !slices.Contains(SystemVariables, p.variable):
		case pairs && t != JSON && !strings.Contains(field, "="):
			return wrongTemplate(anyTemplate, "has ${%s} where the name of a field belongs", p.variable)
		case isNamed(field, p.variable):
			own = append(own, p.variable)
		default:
			delete(fields, p.variable)
		}
	}
	expanded, err := Expand(body, t, values)
	if err != nil {
		return err
	}
	contentType := string(cmp.Or(t, Form))
	callback, err := Parse(contentType, []byte(expanded), fields)
	if err != nil {
		return wrongTemplate(Fix(err), "makes a body that cannot be read, %s", err)
	}
	if name := withText(&callback, own); name != "" {
		return wrongTemplate(useVariable(name), "has text beside ${%s}", name)
	}
	if name := foreign(&callback); name != "" {
		return wrongTemplate("let it hold ${"+name+"}, rename it, or map another name with the receiver's UPCALL_FIELDS",
			"has a field %s that holds something else", strings.TrimPrefix(name, VarPrefix))
	}
	if lacksType(contentType, []byte(expanded)) {
		return wrongTemplate(useJSONType, "%s", notJSONType)
	}
	return nil
}

// lacksType reports whether a body, which Parse accepts, comes from a JSON template that OSS
// filled in as a form.
func lacksType(contentType string, body []byte) bool {
	t, _ := bodyType(contentType)
	return t == Form && strings.HasPrefix(strings.TrimLeft(string(body), blanks), "{") && !json.Valid(body)
}

// isNamed reports whether a field, of which this is the beginning, has the variable's name, or
// its last part, as in "imageInfo":{"height":${imageInfo.height}}.
func isNamed(field, variable string) bool {
	end := max(strings.IndexAny(field, "=:"), 0)
	name := strings.Trim(field[:end], blanks+`"`)
	return name == variable || strings.HasSuffix(variable, "."+name)
}
