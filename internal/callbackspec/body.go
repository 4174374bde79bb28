package callbackspec

import (
	"encoding/json"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"upcall/internal/fault"
)

// A parser fills a Callback in, field by field, from a body of any of the shapes that
// OSS sends.
type parser struct {
	callback Callback
	content  Content
	fields   Fields

	seen uint32 // a bit for each variable that was set: TokenField, then SystemVariables

	// sources are the names that variables had, if fields gives one several names.
	sources []string

	// percentEncoded means that the text in a JSON-shaped body is percent-encoded, because
	// the body's type is that of a form.
	percentEncoded bool
	// quoteBare means that its values may lack quotes, too.
	quoteBare bool
}

// text stores a field that arrived as text.
func (p *parser) text(name, value string) error {
	if !Storable(name) || !Storable(value) {
		return malformed("field %s is not UTF-8 text without NUL", fault.Name(name))
	}
	if variable, ok := p.fields[name]; ok {
		return p.set(variable, name, value)
	}
	return p.keep(name, quote(value))
}

// decoded returns the text of a field that is percent-encoded. OSS encodes what it fills in
// and nothing else: a lone % is a constant of the template, and is kept as written.
func (p *parser) decoded(name, value string) (string, error) {
	text, err := url.QueryUnescape(value)
	if err == nil {
		return text, nil
	}
	if _, system := p.fields[name]; system {
		return "", malformedTemplate("write a % of the template as %25", "field %s is not percent-encoded text", fault.Name(name))
	}
	return value, nil
}

// member stores a field of the body that arrived as a JSON value.
func (p *parser) member(name, raw string) error {
	if err := p.content.walk(name, raw, p.percentEncoded); err != nil {
		return malformed("field %s: %v", fault.Name(name), err)
	}
	return p.value(name, raw)
}

// value stores a field that arrived as a JSON value that the scanner has accepted.
func (p *parser) value(name, raw string) error {
	variable, system := p.fields[name]
	switch kind := kindOf(raw); {
	case kind == "string":
		text := unquote(raw)
		if p.percentEncoded {
			var err error
			if text, err = p.decoded(name, text); err != nil {
				return err
			}
		}
		return p.text(name, text)
	case kind == "object" && !system:
		return p.nested(name, raw)
	case !system:
		return p.keep(name, p.part(raw))
	case kind == "number":
		return p.set(variable, name, raw)
	case kind == "null":
		return p.set(variable, name, "")
	default:
		return malformedTemplate(useVariable(variable), "field %s holds a JSON %s", fault.Name(name), kind)
	}
}

// part returns an object, an array or a literal as it is kept.
func (p *parser) part(raw string) json.RawMessage {
	if !p.percentEncoded {
		return json.RawMessage(raw)
	}
	return decodeTexts(raw)
}

// nested takes system fields out of an object, so that the template
// "imageInfo":{"height":${imageInfo.height}} means what it says, and keeps the rest.
func (p *parser) nested(name, raw string) error {
	lifted := 0
	rest := make([]byte, 0, len(raw))
	err := (&scanner{doc: raw}).object(1, func(inner, value string) error {
		dotted := name + "." + inner
		if _, system := p.fields[dotted]; system {
			lifted++
			return p.value(dotted, value)
		}
		rest = append(rest, "{,"[min(len(rest), 1)])
		rest = append(append(rest, quote(inner)...), ':')
		rest = append(rest, p.part(value)...)
		return nil
	})
	switch {
	case err != nil:
		return err
	case lifted == 0:
		return p.keep(name, p.part(raw))
	case len(rest) == 0:
		return nil
	}
	return p.keep(name, append(rest, '}'))
}

// set stores a system variable, once for each name. A signed body with two values for one
// name means one thing to a reader that takes the first and another to one that takes the
// last; an attacker who can choose a template could exploit that. So several names of one
// variable must agree, too.
func (p *parser) set(variable, name, text string) error {
	n := slices.Index(SystemVariables, variable) + 1 // TokenField is 0
	bit, several := uint32(1)<<n, len(p.fields) > maxVariables
	again := p.seen&bit != 0
	if again && (!several || slices.Contains(p.sources, name)) {
		return fieldTwice(name)
	}
	p.seen |= bit
	if several {
		p.sources = append(p.sources, name)
	}
	if !again {
		return p.callback.set(variableField(&p.callback, n), variable, name, text)
	}
	var second Callback
	field := variableField(&second, n)
	if err := second.set(field, variable, name, text); err != nil {
		return err
	}
	known := reflect.ValueOf(variableField(&p.callback, n)).Elem()
	switch value := reflect.ValueOf(field).Elem(); {
	case known.IsZero():
		known.Set(value) // the other name had no value
	case !value.IsZero() && !reflect.DeepEqual(known.Interface(), value.Interface()):
		first := slices.IndexFunc(p.sources, func(source string) bool { return p.fields[source] == variable })
		return malformedTemplate("send each variable once, or the same one under all names that UPCALL_FIELDS gives it",
			"fields %s and %s hold different values of %s", fault.Name(p.sources[first]), fault.Name(name), variable)
	}
	return nil
}

// keep stores a field that is not a system variable, once.
func (p *parser) keep(name string, raw json.RawMessage) error {
	if _, twice := p.callback.Vars[name]; twice {
		return fieldTwice(name)
	}
	if p.callback.Vars == nil {
		p.callback.Vars = make(map[string]json.RawMessage)
	}
	p.callback.Vars[name] = raw
	return nil
}

// blanks are what JSON allows between its parts. OSS percent-encodes them in a form's
// values, so those that are sent as they are belong to the template, as the line break at
// the end of a file or a here-document does.
const blanks = " \t\r\n"

// trimBlanks is strings.Trim, but quick where there is nothing to trim.
func trimBlanks(s string) string {
	if s == "" || s[0] > ' ' && s[len(s)-1] > ' ' {
		return s
	}
	return strings.Trim(s, blanks)
}

// form reads name=value&name=value. It accepts both spellings of a space, + and %20: the
// documentation does not say which one OSS uses.
func (p *parser) form(body string) error {
	for pair := range strings.SplitSeq(body, "&") {
		rawName, value, _ := strings.Cut(pair, "=")
		rawName, value = trimBlanks(rawName), trimBlanks(value)
		if rawName == "" && value == "" {
			continue
		}
		name, err := url.QueryUnescape(rawName)
		if err != nil {
			name = rawName // a constant of the template, sent as written
		}
		text, err := p.decoded(name, value)
		if err != nil {
			return err
		}
		p.content.add(name, text)
		if err := p.text(name, text); err != nil {
			return err
		}
	}
	return nil
}

// object reads {"name":value,…}.
func (p *parser) object(body []byte) error {
	if p.quoteBare {
		body = quoteBare(body)
	}
	var inner error // says already that the body is malformed
	err := EachMember(body, func(name, value string) error {
		inner = p.member(name, value)
		return inner
	})
	if err != nil && inner == nil {
		return malformedTemplate(jsonAdvice(body, err), "the body is not one JSON object: %s", jsonProblem(body, err))
	}
	return inner
}

// jsonPairs reads name="value"&name=1: what a form-shaped template becomes if its type is
// JSON. Genuinely signed callbacks of this kind exist. A value that is not JSON is a
// constant of the template, or several variables in one field, and is kept as text.
func (p *parser) jsonPairs(body string) error {
	if !utf8.ValidString(body) || !strings.Contains(body, "=") {
		return malformedTemplate(shapeAdvice(body), "the body is neither a JSON object nor name=value pairs")
	}
	for rest := body; rest != ""; {
		var pair string
		pair, rest = cutPair(rest)
		name, value, _ := strings.Cut(pair, "=")
		name, value = trimBlanks(name), trimBlanks(value)
		if name+value == "" {
			continue
		}
		// As in a form: the Content-Type is not signed, and must not hide a field.
		if err := p.pair(unescaped(name), value); err != nil {
			return err
		}
	}
	return nil
}

func (p *parser) pair(name, value string) error {
	if s, err := newScanner([]byte(value)); err == nil && !strings.Contains(name, `"`) {
		start := s.at
		if err := s.value(0); err != nil {
			return malformed("field %s: %v", fault.Name(name), err)
		}
		return p.member(name, s.doc[start:s.at])
	}
	// Text that OSS filled in has quotes. If they are not at the ends of the value, an
	// uploader's object key could look like further fields.
	if strings.Contains(name, `"`) || strings.Contains(value, `"`) {
		return malformedTemplate(besideText,
			"field %s is neither a JSON value nor bare text", fault.Name(name))
	}
	// The text of a form whose Content-Type was changed would be kept encoded.
	if unescaped(value) != value {
		return malformedTemplate(formType, "field %s is percent-encoded, but the type is that of JSON", fault.Name(name))
	}
	p.content.add(name, value)
	return p.text(name, value)
}

// cutPair cuts s at the first & outside quotes.
func cutPair(s string) (pair, rest string) {
	for i := 0; i < len(s); {
		switch s[i] {
		case '&':
			return s[:i], s[i+1:]
		case '"':
			i += stringEnd(s[i:])
		default:
			i++
		}
	}
	return s, ""
}
