package callbackspec

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"upcall/internal/fault"
)

// A Document is one of the two as it travels with an upload: a JSON object, and its
// Base64 of at most [MaxDocument] bytes. Only [Parameter.Document], [Vars.Document] and
// [ReadDocument] make one, so it needs no further check before it becomes a header or a
// query parameter. The zero value has none.
type Document struct {
	object json.RawMessage
	base64 string
}

// JSON is the decoded document, nil if there is none. Callers must not change it.
func (d Document) JSON() json.RawMessage { return d.object }

// Base64 is what travels, "" if there is no document.
func (d Document) Base64() string { return d.base64 }

// ReadDocument takes an existing JSON object as it is. The error is a [fault.Fault] for the
// field: not a JSON object, or too large. Nothing else is checked.
func ReadDocument(field string, text []byte) (Document, error) {
	if err := EachMember(text, func(string, string) error { return nil }); err != nil {
		return Document{}, notJSON(field, err)
	}
	return newDocument(field, text)
}

// newDocument encodes a JSON object.
func newDocument(field string, object []byte) (Document, error) {
	n := base64.StdEncoding.EncodedLen(len(object))
	if n > MaxDocument {
		return Document{}, tooLarge(field, n)
	}
	// Piece by piece: EncodeToString makes the text twice.
	const piece = 3 << 8
	var text strings.Builder
	text.Grow(n)
	var room [piece / 3 * 4]byte
	for plain := range slices.Chunk(object, piece) {
		base64.StdEncoding.Encode(room[:], plain)
		text.Write(room[:base64.StdEncoding.EncodedLen(len(plain))])
	}
	return Document{object, text.String()}, nil
}

func notJSON(field string, err error) error {
	return fault.New(ErrNotJSON, field, "encode a JSON object in UTF-8", "is not one JSON object: %s", err)
}

func tooLarge(field string, n int) error {
	return fault.New(ErrTooLarge, field, "OSS allows 5120: shorten the template, the URLs or the variables",
		"takes %d bytes in Base64", n)
}

// decodeDocument decodes a document and returns the members of its JSON object, each value
// as written.
func decodeDocument(field, encoded string) (map[string]string, error) {
	if len(encoded) > MaxDocument {
		return nil, tooLarge(field, len(encoded))
	}
	// encoding/base64 skips line breaks; a header value cannot contain any.
	doc, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || strings.ContainsAny(encoded, "\r\n") {
		return nil, notBase64(field, encoded)
	}
	members := make(map[string]string)
	err = EachMember(doc, func(name, value string) error {
		members[name] = value
		return nil
	})
	if err != nil {
		return nil, notJSON(field, err)
	}
	return members, nil
}

// notBase64 says what is wrong, as far as one character shows it.
func notBase64(field, encoded string) error {
	problem, fix := "", "encode the JSON with the alphabet A-Z a-z 0-9 + / and padding"
	switch has := func(chars string) bool { return strings.ContainsAny(encoded, chars) }; {
	case has("{\""):
		problem, fix = ": it is the JSON itself", "encode it with the alphabet A-Z a-z 0-9 + / and padding"
	case has("\r\n"):
		problem = ": it has line breaks"
		fix = "encode without them: base64 -w0, Base64.NO_WRAP in Java for Android, strict_encode64 in Ruby; " +
			"the alphabet is A-Z a-z 0-9 + / and padding"
	case has("%"):
		problem, fix = ": it is percent-encoded", "give the Base64 itself, with + / and the padding = as they are"
	case has("-_"):
		problem, fix = ": it is Base64 for URLs", "use the standard alphabet, with + / in place of - _, and padding"
	case has(" \t"):
		problem = ": it has spaces"
		fix = "leave them out; where they stand for +, percent-encode + / = in the query or form: " +
			"the alphabet is A-Z a-z 0-9 + / and padding"
	case len(encoded)%4 != 0:
		problem, fix = ": its padding is missing, or it was cut off", "keep the padding: = up to a multiple of four characters"
	}
	return fault.New(ErrNotBase64, field, fix, "is not standard Base64%s", problem)
}

// kinds are the types of JSON values by their first bytes; all others begin numbers.
var kinds = [256]string{'"': "string", '{': "object", '[': "array", 't': "boolean", 'f': "boolean", 'n': "null"}

// kindOf names the type of a JSON value.
func kindOf(value string) string { return cmp.Or(kinds[value[0]], "number") }

// appendMembers appends the object of the members with these names.
func appendMembers(doc []byte, members map[string]string, names []string) []byte {
	doc = append(doc, '{')
	for i, name := range names {
		if i > 0 {
			doc = append(doc, ',')
		}
		doc = appendMember(doc, name, members[name])
	}
	return append(doc, '}')
}

func appendMember(doc []byte, name, value string) []byte {
	return AppendQuoted(append(AppendQuoted(doc, name), ':'), value)
}

func sortedKeys(m map[string]string) []string {
	keys := slices.AppendSeq(make([]string, 0, len(m)), maps.Keys(m))
	slices.Sort(keys)
	return keys
}

// marshal writes v as compact JSON with &, < and > as they are: templates are full of
// ampersands, and OSS counts bytes.
func marshal(v any) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic("callbackspec: strings and maps of strings always marshal: " + err.Error())
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
}
