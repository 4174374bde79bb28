package callbackspec

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/url"
	"strings"
	"unicode/utf8"
)

// A parser fills a Callback in, field by field, from a body of any of the shapes that
// OSS sends.
type parser struct {
	callback Callback
	fields   Fields
	seen     map[string]bool
}

// once refuses a name that stands twice. A signed body with two values for one name
// means one thing to a reader that takes the first and another to one that takes the
// last; an attacker who can choose a template would use that.
func (p *parser) once(name string) error {
	if p.seen[name] {
		return malformed("field %s stands twice", printable(name))
	}
	p.seen[name] = true
	return nil
}

// text stores a field that arrived as text.
func (p *parser) text(name, value string) error {
	if !storable(name) || !storable(value) {
		return malformed("field %s is not UTF-8 text without NUL", printable(name))
	}
	if err := p.once(name); err != nil {
		return err
	}
	if variable, ok := p.fields[name]; ok {
		return p.callback.set(variable, name, value)
	}
	p.keep(name, marshal(value))
	return nil
}

// value stores a field that arrived as a JSON value.
func (p *parser) value(name string, raw json.RawMessage, decode func(string) (string, error)) error {
	variable, system := p.fields[name]
	switch {
	case raw[0] == '"':
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return malformed("field %s is not a JSON string", printable(name))
		}
		s, err := decode(s)
		if err != nil {
			return malformed("field %s is not percent-encoded text", printable(name))
		}
		return p.text(name, s)
	case raw[0] == '{':
		if rest, err := p.nested(name, raw, decode); err != nil || rest == nil {
			return err
		} else if system {
			return malformed("field %s holds an object", printable(name))
		} else {
			raw = rest
		}
	case system && raw[0] == '[', system && (raw[0] == 't' || raw[0] == 'f'):
		return malformed("field %s holds neither text nor a number", printable(name))
	}
	if err := p.once(name); err != nil {
		return err
	}
	switch {
	case system && raw[0] == 'n':
		return nil
	case system:
		return p.callback.set(variable, name, string(raw))
	}
	// jsonb has no NUL, and its text must be UTF-8.
	if bytes.Contains(raw, []byte(`\u0000`)) || !storable(name) {
		return malformed("field %s holds NUL", printable(name))
	}
	p.keep(name, raw)
	return nil
}

// nested takes system fields out of an object, so that the template
// "imageInfo":{"height":${imageInfo.height}} means what it says, and returns the
// object without them, or nil if nothing is left of it.
func (p *parser) nested(name string, raw json.RawMessage, decode func(string) (string, error)) (json.RawMessage, error) {
	members, err := decodeObject(raw)
	if err != nil {
		return nil, malformed("field %s: %v", printable(name), err)
	}
	var rest []member
	for _, m := range members {
		dotted := name + "." + m.name
		if _, system := p.fields[dotted]; !system {
			rest = append(rest, m)
			continue
		}
		if err := p.value(dotted, m.value, decode); err != nil {
			return nil, err
		}
	}
	if len(rest) == len(members) {
		return raw, nil
	}
	if len(rest) == 0 {
		return nil, nil
	}
	var out bytes.Buffer
	for i, m := range rest {
		out.WriteByte("{,"[min(i, 1)])
		out.Write(marshal(m.name))
		out.WriteByte(':')
		out.Write(m.value)
	}
	out.WriteByte('}')
	return out.Bytes(), nil
}

func (p *parser) keep(name string, raw json.RawMessage) {
	if p.callback.Vars == nil {
		p.callback.Vars = make(map[string]json.RawMessage)
	}
	p.callback.Vars[name] = raw
}

// form reads name=value&name=value. Both spellings of a space, + and %20, are taken:
// which one OSS uses is not documented.
func (p *parser) form(body []byte) error {
	for pair := range strings.SplitSeq(string(body), "&") {
		if pair == "" {
			continue
		}
		rawName, rawValue, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(rawName)
		if err != nil {
			return malformed("a field name is not percent-encoded text")
		}
		value, err := url.QueryUnescape(rawValue)
		if err != nil {
			return malformed("field %s is not percent-encoded text", printable(name))
		}
		if err := p.text(name, value); err != nil {
			return err
		}
	}
	return nil
}

// jsonObject reads {"name":value,…}. decode is what remains to be done to text: in a
// body of form type the values inside the quotes are percent-encoded.
func (p *parser) jsonObject(body []byte, decode func(string) (string, error)) error {
	members, err := decodeObject(body)
	if err != nil {
		return malformed("%v", err)
	}
	for _, m := range members {
		if err := p.value(m.name, m.value, decode); err != nil {
			return err
		}
	}
	return nil
}

// jsonPairs reads name="value"&name=1: what a form-shaped template becomes when its
// type is JSON. Such a callback was seen genuinely signed.
func (p *parser) jsonPairs(body []byte) error {
	rest := bytes.TrimSpace(body)
	if !bytes.ContainsRune(rest, '=') {
		return malformed("the body is not a JSON object")
	}
	for len(rest) > 0 {
		name, after, ok := bytes.Cut(rest, []byte("="))
		if !ok {
			return malformed("a field has no value")
		}
		dec := json.NewDecoder(bytes.NewReader(after))
		var raw json.RawMessage
		end := bytes.IndexByte(after, '&')
		switch {
		case len(after) == 0, end == 0: // name=&…
			raw = json.RawMessage("null")
			rest = after
		case dec.Decode(&raw) == nil && utf8.Valid(raw):
			rest = after[dec.InputOffset():]
		default:
			return malformed("field %s is not a JSON value", printable(string(name)))
		}
		if len(rest) > 0 && rest[0] != '&' {
			return malformed("field %s is followed by something else than &", printable(string(name)))
		}
		rest = bytes.TrimPrefix(rest, []byte("&"))
		if err := p.value(string(name), raw, textAsIs); err != nil {
			return err
		}
	}
	return nil
}

func textAsIs(s string) (string, error)     { return s, nil }
func formUnescape(s string) (string, error) { return url.QueryUnescape(s) }

type member struct {
	name  string
	value json.RawMessage // never empty
}

// decodeObject reads one JSON object, in order, and refuses what encoding/json lets
// pass: invalid UTF-8, a name that stands twice, and anything after the object.
func decodeObject(data []byte) ([]member, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("the document is not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if start, err := dec.Token(); err != nil || start != json.Delim('{') {
		return nil, errors.New("the document is not a JSON object")
	}
	var members []member
	seen := make(map[string]bool)
	for dec.More() {
		token, err := dec.Token()
		name, ok := token.(string)
		if err != nil || !ok {
			return nil, errors.New("the JSON is cut short or broken")
		}
		if seen[name] {
			return nil, errors.New("field " + printable(name) + " stands twice")
		}
		seen[name] = true
		m := member{name: name}
		if err := dec.Decode(&m.value); err != nil {
			return nil, errors.New("the value of field " + printable(name) + " is not JSON")
		}
		members = append(members, m)
	}
	if _, err := dec.Token(); err != nil { // the closing brace
		return nil, errors.New("the JSON is cut short or broken")
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("something follows the JSON object")
	}
	return members, nil
}

// storable reports whether PostgreSQL can hold s as text.
func storable(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

// printable makes a name from a body safe for one line of an error.
func printable(name string) string {
	name = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || c == utf8.RuneError {
			return '?'
		}
		return c
	}, name)
	return clip(name)
}
