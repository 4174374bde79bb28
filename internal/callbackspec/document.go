package callbackspec

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"

	"upcall/internal/fault"
)

// A Document is one of the two as it travels with an upload: a JSON object, and its
// Base64 of at most [MaxDocument] bytes. None is made but by [Parameter.Document],
// [Vars.Document] and [ReadDocument], so a holder of one need not check it
// again: no header or query parameter that it becomes can hold anything else. The zero
// value is none.
type Document struct {
	object json.RawMessage
	base64 string
}

// JSON is the document in plain, nil if there is none. It is not to be changed.
func (d Document) JSON() json.RawMessage { return d.object }

// Base64 is what travels, "" if there is no document.
func (d Document) Base64() string { return d.base64 }

// ReadDocument takes a JSON object that was written before, as it is. The error is a
// [fault.Fault] for the field: what stands there is no JSON object, or is too large.
// Nothing else is checked.
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
	return fault.New(ErrTooLarge, field, "OSS allows 5120: shorten the template, the URLs or the variables", "takes %d bytes in Base64", n)
}

// decodeDocument undoes the Base64 of a document and returns the members of its JSON
// object, each value as it is written there.
func decodeDocument(field, encoded string) (map[string]string, error) {
	if len(encoded) > MaxDocument {
		return nil, tooLarge(field, len(encoded))
	}
	// encoding/base64 skips line breaks; a header value cannot hold any.
	doc, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || strings.ContainsAny(encoded, "\r\n") {
		return nil, fault.New(ErrNotBase64, field, "encode the JSON with the alphabet A-Z a-z 0-9 + / and padding", "is not standard Base64")
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

// kindOf names the type of a JSON value.
func kindOf(value string) string {
	switch value[0] {
	case '"':
		return "string"
	case '{':
		return "object"
	case '[':
		return "array"
	case 't', 'f':
		return "boolean"
	case 'n':
		return "null"
	}
	return "number"
}

// appendMembers appends the object of the members of these names.
func appendMembers(doc []byte, members map[string]string, names []string) []byte {
	doc = append(doc, '{')
	for i, name := range names {
		if i > 0 {
			doc = append(doc, ',')
		}
		doc = AppendQuoted(doc, name)
		doc = append(doc, ':')
		doc = AppendQuoted(doc, members[name])
	}
	return append(doc, '}')
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// marshal writes v as compact JSON with &, < and > as they are: a template is full
// of ampersands, and OSS counts bytes.
func marshal(v any) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic("callbackspec: strings and maps of strings always marshal: " + err.Error())
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
}
