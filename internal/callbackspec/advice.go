package callbackspec

import (
	"cmp"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

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
)

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
	pair := is("after object key:value pair")
	switch {
	case is("unexpected end"):
		return "end each text with a quote, and the template with }"
	case pair && at != '"' && strings.HasSuffix(before, `"`), is("after array element") && strings.HasSuffix(before, `"`):
		return noQuotes
	case at == '\\':
		return plainQuotes
	case at >= 0x80:
		return `use the plain characters " : , { and }`
	case at == '\'':
		return "put names and text into double quotes"
	case is("after top-level value"):
		return "write nothing after the } at the end"
	case is("object key string") && at == '}':
		return "leave out the comma before }"
	case is("object key string"):
		return "put each name into double quotes"
	case pair:
		return "write a comma between two fields"
	case is("after object key"):
		return "write a colon between a name and its value"
	case is("after array element"):
		return "write a comma between two values"
	case is("looking for beginning of value"):
		return "give each name a value: a variable, a number, or text in double quotes"
	case is("in string literal"):
		return `write a line break in a text as \n`
	case is("in string escape"):
		return `write a backslash in a text as \\`
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
	for pair := range strings.SplitSeq(string(body), "&") {
		name, value, _ := strings.Cut(pair, "=")
		if trimmed := strings.Trim(name, blanks); trimmed != name || strings.Trim(value, blanks) != value {
			odd = append(odd, "a line break, tab or space of the template is around field "+fault.Name(trimmed)+", and is ignored")
		}
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
	return "v"
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
	values, fields := make(Values), maps.Clone(identity)
	field := "" // up to here
	for _, p := range pieces {
		if name := encodedVariable(p.constant); name != "" {
			return wrongTemplate(plainTemplate, "holds the text of the variable %s: "+
				"the template was percent-encoded before OSS saw it", name)
		}
		values[p.variable] = sample(p.variable)
		if field += p.constant; strings.ContainsAny(p.constant, "&,{") {
			field = p.constant[strings.LastIndexAny(p.constant, "&,{")+1:]
		}
		if slices.Contains(SystemVariables, p.variable) && !isNamed(field, p.variable) {
			delete(fields, p.variable)
		}
	}
	expanded, err := Expand(body, t, values)
	if err != nil {
		return err
	}
	contentType := string(cmp.Or(t, Form))
	if _, err := Parse(contentType, []byte(expanded), fields); err != nil {
		return wrongTemplate(Fix(err), "makes a body that cannot be read, %s", err)
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

var percentDecoder = strings.NewReplacer("%24", "$", "%7B", "{", "%7b", "{", "%7D", "}", "%7d", "}", "%3A", ":", "%3a", ":")

// encodedVariable returns the first variable in a constant that was percent-encoded, once or
// more often, and so hidden from OSS.
func encodedVariable(constant string) string {
	for before := ""; before != constant; constant = strings.ReplaceAll(constant, "%25", "%") {
		before = constant
		for _, after := range strings.Split(percentDecoder.Replace(constant), "${")[1:] {
			name, _, closed := strings.Cut(after, "}")
			if closed && (slices.Contains(SystemVariables, name) || checkVarName(name) == nil) {
				return "${" + name + "}"
			}
		}
	}
	return ""
}
