package callbackspec

import (
	"slices"
	"strings"

	"upcall/internal/fault"
	"upcall/internal/ossrule"
)

// systemForm and systemJSON are the beginning of the default template: every system
// variable, in a field with its name.
var (
	systemForm = eachVariable("", "&", func(name string) string { return name + "=${" + name + "}" })
	systemJSON = eachVariable("{", ",", func(name string) string { return `"` + name + `":${` + name + "}" })
)

func eachVariable(start, separator string, field func(name string) string) string {
	var fields []string
	for _, name := range SystemVariables {
		fields = append(fields, field(name))
	}
	return start + strings.Join(fields, separator)
}

// The upload token travels as a custom variable and arrives in its own field.
const (
	TokenField = "upcall_token"
	TokenVar   = VarPrefix + TokenField
)

// Values has the value of each variable: system variables by their names, custom ones
// with their prefix. A missing entry is a variable without a value.
type Values map[string]string

// DefaultBody returns the template with every system variable, the custom variables
// varNames (without "x:") and, if asked, the upload token. Each field has the name of its
// variable, custom ones without the prefix, as in OSS's own examples.
func DefaultBody(t BodyType, varNames []string, withToken bool) (string, error) {
	names := varNames
	if !slices.IsSorted(names) {
		names = slices.Sorted(slices.Values(names))
	}
	for i, name := range names {
		if !validName(name) {
			return "", checkVarName(VarPrefix + name)
		}
		if slices.Contains(SystemVariables, name) || i > 0 && names[i-1] == name || name == TokenField {
			return "", fault.New(ErrVarName, VarPrefix+name, "choose another name, or give a callback body of your own",
				"has the name of a field that the body already has")
		}
	}
	first, before, between, last := systemForm, "&", "=${"+VarPrefix, ""
	if t == JSON {
		first, before, between, last = systemJSON, `,"`, `":${`+VarPrefix, "}"
	}
	var body strings.Builder
	body.Grow(len(first) + 32*(len(names)+1))
	field := func(name string) {
		body.WriteString(before)
		body.WriteString(name)
		body.WriteString(between)
		body.WriteString(name)
		body.WriteByte('}')
	}
	body.WriteString(first)
	for _, name := range names {
		field(name)
	}
	if withToken {
		field(TokenField)
	}
	body.WriteString(last)
	return body.String(), nil
}

// WithToken returns the template with a field for the upload token at its end, or
// unchanged if it refers to the token already. The template's shape, a JSON object or
// name=value pairs, decides where the field goes; the type decides who writes the quotes.
func WithToken(body string, t BodyType) (string, error) {
	pieces, err := parseTemplate(body)
	if err != nil {
		return "", err
	}
	if slices.Contains(pieces, piece{variable: TokenVar}) {
		return body, nil
	}
	// The receiver refuses two fields of one name.
	if slices.ContainsFunc(pieces, func(p piece) bool { return strings.Contains(p.constant, TokenField) }) {
		return "", wrongTemplate("rename that field or give it the variable",
			"names %s but does not hold ${%s}", TokenField, TokenVar)
	}
	return withField(body, t, pieces, TokenField, TokenVar)
}

// WithRequestID returns the template with the field reqId at its end, or unchanged if it
// refers to that variable or has such a field already. Without it, two uploads of the same
// content have the same callback, and one callback could count as several.
func WithRequestID(body string, t BodyType) (string, error) {
	const name = "reqId"
	pieces, err := parseTemplate(body)
	if err != nil || slices.Contains(pieces, piece{variable: name}) {
		return body, err
	}
	longer, err := withField(body, t, pieces, name, name)
	if err == nil && CheckBody(longer, t) != nil && CheckBody(body, t) == nil {
		return body, nil
	}
	return longer, err
}

// withField returns the template with a field at its end.
func withField(body string, t BodyType, pieces []piece, name, variable string) (string, error) {
	trimmed := strings.Trim(body, blanks)
	// A template may end with the brace of a variable; only a constant closes an object.
	closed := len(pieces) > 0 && strings.HasSuffix(strings.TrimRight(pieces[len(pieces)-1].constant, blanks), "}")
	switch {
	case strings.HasPrefix(trimmed, "{") && closed:
		value := "${" + variable + "}"
		if t != JSON {
			value = `"` + value + `"`
		}
		open := strings.TrimRight(strings.TrimSuffix(trimmed, "}"), blanks)
		if open != "{" {
			open += ","
		}
		return open + `"` + name + `":` + value + "}", nil
	case strings.HasPrefix(trimmed, "{"),
		t == JSON && (trimmed == "" || strings.ContainsAny(trimmed[:1], `["`) || !strings.Contains(trimmed, "=")):
		return "", wrongTemplate(anyTemplate,
			"is neither a JSON object nor name=value pairs, so %s has no place in it", name)
	case trimmed == "":
		return name + "=${" + variable + "}", nil
	default:
		return trimmed + "&" + name + "=${" + variable + "}", nil
	}
}

// Expand fills a template in as OSS does. The substitution is textual. In a form body
// each value is percent-encoded. In a JSON body OSS adds quotes to text, numbers are bare,
// and a variable without a value is null (OSS does not document this last case). Text
// between the variables is sent as written.
func Expand(body string, t BodyType, values Values) (string, error) {
	pieces, err := parseTemplate(body)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for _, p := range pieces {
		if p.variable == "" {
			out.WriteString(p.constant)
			continue
		}
		value, ok := values[p.variable]
		custom := strings.HasPrefix(p.variable, VarPrefix)
		switch {
		case t != JSON:
			// OSS may send a space as + or as %20; a receiver must accept both.
			out.WriteString(ossrule.Escape(value))
		case !ok, value == "" && !custom:
			out.WriteString("null")
		case numeric(p.variable):
			out.WriteString(value)
		default:
			out.Write(marshal(value))
		}
	}
	return out.String(), nil
}

// beginnings are those of the default templates, plain and escaped for a JSON string.
var beginnings = [...]struct{ template, escaped string }{
	{systemForm, string(appendEscaped(nil, systemForm))},
	{systemJSON, string(appendEscaped(nil, systemJSON))},
}

// cutBeginning cuts off the beginning of a default template. Most templates begin with it,
// and it needs no escaping.
func cutBeginning(body string) (escaped, rest string) {
	for _, b := range beginnings {
		if rest, ok := strings.CutPrefix(body, b.template); ok {
			return b.escaped, rest
		}
	}
	return "", body
}

// A piece of a template is a constant or a variable.
type piece struct{ constant, variable string }

// parseTemplate splits a template. The error is a [fault.Fault] for callbackBody.
func parseTemplate(body string) ([]piece, error) {
	pieces := make([]piece, 0, 2*strings.Count(body, "$")+1)
	err := eachPiece(body, func(p piece) { pieces = append(pieces, p) })
	return pieces, err
}

// eachPiece calls each for every piece of a template in order, up to the first mistake.
func eachPiece(body string, each func(piece)) error {
	for body != "" {
		constant, rest, found := strings.Cut(body, "$")
		if constant != "" {
			each(piece{constant: constant})
		}
		if !found {
			break
		}
		if !strings.HasPrefix(rest, "{") {
			// EC 0007-00000105: "Left brace must be adjacent to dollar sign."
			if strings.HasPrefix(rest, "｛") {
				return wrongTemplate("use the plain characters { and }", "has a lone $ before %s", fault.Quote(rest))
			}
			return wrongTemplate(`write ${name}; a dollar sign itself is %24 in a form body and \u0024 in a JSON one`,
				"has a lone $ before %s", fault.Quote(rest))
		}
		name, after, closed := strings.Cut(rest[1:], "}")
		if !closed {
			return wrongTemplate("close it with }", "has ${%s without an end", fault.Name(name))
		}
		if strings.HasPrefix(name, VarPrefix) {
			if checkVarName(name) != nil {
				return wrongTemplate(nearVariable(name)+"use lower-case letters, digits, hyphen, underscore and dot",
					"has the variable ${%s}", fault.Name(name))
			}
		} else if !slices.Contains(SystemVariables, name) {
			known := strings.Join(SystemVariables, ", ")
			return wrongTemplate(nearVariable(name)+"the system variables are "+known+"; custom ones start with x:",
				"has the unknown variable ${%s}", fault.Name(name))
		}
		each(piece{variable: name})
		body = after
	}
	return nil
}

func wrongTemplate(fix, problem string, args ...any) error {
	return fault.New(ErrTemplate, "callbackBody", fix, problem, args...)
}
