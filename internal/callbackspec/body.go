package callbackspec

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"upcall/internal/fault"
)

// A parser fills a Callback in, field by field, from a body of any of the shapes that
// OSS sends.
type parser struct {
	callback Callback
	fields   Fields
	seen     uint32 // a bit for each variable that was set, in the order of SystemVariables

	// percentEncoded means that the text inside the quotes of a JSON-shaped body is
	// percent-encoded, because the body's type is that of a form. The parts of objects and
	// arrays that are kept stay as they were sent.
	percentEncoded bool
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

// encoded stores a field whose text is percent-encoded. OSS encodes what it fills in and
// nothing else: a lone % is a constant of the template, and is kept as written.
func (p *parser) encoded(name, value string) error {
	text, err := url.QueryUnescape(value)
	if _, system := p.fields[name]; err != nil && system {
		return malformed("field %s is not percent-encoded text", fault.Name(name))
	}
	if err != nil {
		text = value
	}
	return p.text(name, text)
}

// value stores a field that arrived as a JSON value that the scanner has accepted.
func (p *parser) value(name, raw string) error {
	variable, system := p.fields[name]
	switch kind := kindOf(raw); {
	case kind == "string":
		if p.percentEncoded {
			return p.encoded(name, unquote(raw))
		}
		return p.text(name, unquote(raw))
	case kind == "object" && !system:
		return p.nested(name, raw)
	case !system:
		return p.keep(name, json.RawMessage(raw))
	case kind == "number":
		return p.set(variable, name, raw)
	case kind == "null":
		return p.set(variable, name, "")
	default:
		return malformed("field %s holds a JSON %s", fault.Name(name), kind)
	}
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
		rest = append(rest, value...)
		return nil
	})
	switch {
	case err != nil:
		return err
	case lifted == 0:
		return p.keep(name, json.RawMessage(raw))
	case len(rest) == 0:
		return nil
	}
	return p.keep(name, append(rest, '}'))
}

// set stores a system variable, once. A signed body with two values for one name means
// one thing to a reader that takes the first and another to one that takes the last; an
// attacker who can choose a template could exploit that.
func (p *parser) set(variable, name, text string) error {
	n, field := slices.Index(SystemVariables, variable), any(&p.callback.Token)
	if n >= 0 {
		field = systemVariables[n].field(&p.callback)
	}
	bit := uint32(1) << (n + 1) // TokenField is bit 0
	if p.seen&bit != 0 {
		return malformed("field %s appears twice", fault.Name(name))
	}
	p.seen |= bit
	return p.callback.set(field, variable, name, text)
}

// keep stores a field that is not a system variable, once.
func (p *parser) keep(name string, raw json.RawMessage) error {
	if _, twice := p.callback.Vars[name]; twice {
		return malformed("field %s appears twice", fault.Name(name))
	}
	if p.callback.Vars == nil {
		p.callback.Vars = make(map[string]json.RawMessage)
	}
	p.callback.Vars[name] = raw
	return nil
}

// form reads name=value&name=value. It accepts both spellings of a space, + and %20: the
// documentation does not say which one OSS uses.
func (p *parser) form(body string) error {
	for pair := range strings.SplitSeq(body, "&") {
		if pair == "" {
			continue
		}
		rawName, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(rawName)
		if err != nil {
			name = rawName // a constant of the template, sent as written
		}
		if err := p.encoded(name, value); err != nil {
			return err
		}
	}
	return nil
}

// object reads {"name":value,…}.
func (p *parser) object(body []byte) error {
	var inner error // says already that the body is malformed
	err := EachMember(body, func(name, value string) error {
		inner = p.value(name, value)
		return inner
	})
	if err != nil && inner == nil {
		return malformed("the body is not one JSON object: %v", err)
	}
	return inner
}

// jsonPairs reads name="value"&name=1: what a form-shaped template becomes if its type is
// JSON. Genuinely signed callbacks of this kind exist. A value that is not JSON is a
// constant of the template, or several variables in one field, and is kept as text.
func (p *parser) jsonPairs(body string) error {
	if !utf8.ValidString(body) || !strings.Contains(body, "=") {
		return malformed("the body is neither a JSON object nor name=value pairs")
	}
	for rest := strings.Trim(body, " \t\r\n"); rest != ""; {
		var pair string
		pair, rest = cutPair(rest)
		name, value, _ := strings.Cut(pair, "=")
		if name+value == "" {
			continue
		}
		if err := p.pair(name, value); err != nil {
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
		return p.value(name, s.doc[start:s.at])
	}
	// Text that OSS filled in has quotes. If they are not at the ends of the value, an
	// uploader's object key could look like further fields.
	if strings.Contains(name, `"`) || strings.Contains(value, `"`) {
		return malformed("field %s is neither a JSON value nor bare text", fault.Name(name))
	}
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
