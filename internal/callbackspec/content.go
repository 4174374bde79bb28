package callbackspec

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
)

// A Content is what a callback's body holds, field by field, for an upload token to be
// checked against. The receiver does not know the template: so the token says which
// fields may hold anything, because OSS fills them in, and covers the others and the names
// of all. Both sides read the fields with the same parser.
type Content struct {
	bodyType BodyType
	fields   Fields
	leaves   []leaf
}

// A leaf is a field, or a part of an object or array, that is neither.
type leaf struct {
	path string // names and indexes behind NULs, which no name holds
	text string // of text; otherwise the JSON
	json bool   // it is no text
}

func (l leaf) same(other leaf) bool { return l.text == other.text && l.json == other.json }

// ownNames are the fields that may hold anything wherever they are the system variables of
// their names, and the token itself. An object's member is lifted, see parser.nested.
var ownNames = func() map[string]ownName {
	names := make(map[string]ownName)
	for i, name := range slices.Concat([]string{TokenField}, SystemVariables) {
		own := ownName{name, 1 << i}
		names[name] = own
		if outer, inner, nested := strings.Cut(name, "."); nested {
			names[outer+memberMark+inner] = own
		}
	}
	return names
}()

type ownName struct {
	name string
	bit  uint16
}

const (
	memberMark = "\x00."
	indexMark  = "\x00#"
)

// add notes a field that holds text.
func (c *Content) add(name, text string) {
	if c.leaves == nil {
		c.leaves = make([]leaf, 0, len(SystemVariables)+4)
	}
	c.leaves = append(c.leaves, leaf{path: name, text: text})
}

// walk notes the leaves of a JSON value that the scanner has accepted. null is what OSS
// makes of a variable without a value, and the same as empty text.
func (c *Content) walk(path, raw string, percentEncoded bool) error {
	switch kindOf(raw) {
	case "string":
		text := unquote(raw)
		if percentEncoded {
			text = unescaped(text)
		}
		c.add(path, text)
		return nil
	case "null":
		c.add(path, "")
		return nil
	case "object":
		before := len(c.leaves)
		err := (&scanner{doc: raw}).object(1, func(name, value string) error {
			return c.walk(path+memberMark+name, value, percentEncoded)
		})
		if err != nil || len(c.leaves) > before {
			return err
		}
	case "array":
		before := len(c.leaves)
		s, i := &scanner{doc: raw}, 0
		err := s.items(1, ']', func() error {
			start := s.at
			if err := s.value(1); err != nil {
				return err
			}
			i++
			return c.walk(path+indexMark+strconv.Itoa(i), s.doc[start:s.at], percentEncoded)
		})
		if err != nil || len(c.leaves) > before {
			return err
		}
		raw = "[]"
	}
	c.leaves = append(c.leaves, leaf{path, raw, true})
	return nil
}

// A shape says how to tell the leaves of a template apart. It travels in the token as
//
//	own names that hold their variables [2] | own names that hold something fixed [2] |
//	two bits for each other leaf, in the order of their paths, without those that are zero at the end
//
// and as nothing if it is that of a default template.
type shape struct {
	open, fixed uint16
	kinds       []byte
}

// The kinds of leaves.
const (
	variable = iota // a custom variable under its own name
	constant        // anything else that is fixed
	open            // OSS fills something in
)

var allOwn = uint16(1)<<(len(SystemVariables)+1) - 1

func readShape(b []byte) shape {
	if len(b) < 4 {
		return shape{open: allOwn}
	}
	return shape{binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:]), b[4:]}
}

func (s shape) bytes() []byte {
	s.kinds = bytes.TrimRight(s.kinds, "\x00")
	if s.open == allOwn && s.fixed == 0 && len(s.kinds) == 0 {
		return nil
	}
	b := binary.BigEndian.AppendUint16(nil, s.open)
	return append(binary.BigEndian.AppendUint16(b, s.fixed), s.kinds...)
}

func (s shape) kind(i int) int {
	if i/4 >= len(s.kinds) {
		return variable
	}
	return int(s.kinds[i/4] >> (i % 4 * 2) & 3)
}

func (s *shape) setKind(i, kind int) {
	for i/4 >= len(s.kinds) {
		s.kinds = append(s.kinds, 0)
	}
	s.kinds[i/4] |= byte(kind) << (i % 4 * 2)
}

// Terms returns what a token with this shape has to cover of the content: the custom
// variables, and everything else. A field that the template does not have is part of
// either, so that it matches no token.
func (c *Content) Terms(shape []byte) (vars, rest []byte) {
	s := readShape(shape)
	var room [8]leaf
	listed := room[:0]
	for _, l := range c.leaves {
		if !c.free(l, s) {
			listed = append(listed, l)
		}
	}
	sortLeaves(listed)
	return appendTerms(c.bodyType, listed, s)
}

// free says whether a leaf may hold anything, or be missing. A receiver that reads the
// variable elsewhere keeps the field like any other: then the template must have it.
func (c *Content) free(l leaf, s shape) bool {
	own, ok := ownNames[l.path]
	if !ok || s.fixed&own.bit != 0 {
		return false
	}
	if s.open&own.bit != 0 {
		return true
	}
	_, system := c.fields[own.name]
	return system
}

// appendTerms returns the terms of sorted leaves. The Content-Type is not signed, but says how to read
// the body, so it is part of them.
func appendTerms(t BodyType, leaves []leaf, s shape) (vars, rest []byte) {
	if len(leaves) > 0 {
		vars = make([]byte, 0, 128) // enough for a few short ones
	}
	if t == JSON {
		rest = append(rest, 'J')
	}
	for i, l := range leaves {
		holds := byte('t')
		if l.json {
			holds = 'j'
		}
		switch s.kind(i) {
		case variable:
			vars = appendParts(append(vars, holds), l.path, l.text)
		case open:
			rest = appendParts(append(rest, 'o'), l.path)
		default:
			rest = appendParts(append(rest, holds), l.path, l.text)
		}
	}
	return vars, rest
}

// appendParts puts the length before each part, so that no two lists look alike.
func appendParts(dst []byte, parts ...string) []byte {
	for _, part := range parts {
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(part)))
		dst = append(dst, part...)
	}
	return dst
}

func sortLeaves(leaves []leaf) {
	slices.SortFunc(leaves, func(a, b leaf) int { return cmp.Compare(a.path, b.path) })
}
