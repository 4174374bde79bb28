package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"go.yaml.in/yaml/v4"

	"upcall/internal/fault"
)

// A reader walks the nodes of a file and notes every mistake. It does not decode into
// structs, because that stops at the first mistake and does not say where it is.
type reader struct{ faults fault.List }

// note notes a mistake. Its field is the line and column of n, and path, as in
// policies.photos.max_size. The path "" means the whole file.
func (r *reader) note(n *yaml.Node, path, problem string, args ...any) {
	at := fmt.Sprintf("%d:%d", n.Line, n.Column)
	if path != "" {
		at += ": " + path
	}
	r.faults.AddAt(at, problem, args...)
}

// document returns the only document of a file, or nil.
func (r *reader) document(data []byte) *yaml.Node {
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	if err != nil {
		r.malformed(err)
		return nil
	}
	var first, second yaml.Node
	if err = loader.Load(&first); err == nil {
		err = loader.Load(&second)
	}
	switch {
	case err == nil:
		r.note(&second, "", "the file holds a second document; keep all policies in one")
	case !errors.Is(err, io.EOF):
		r.malformed(err)
	case len(first.Content) != 1:
		r.note(&yaml.Node{Line: 1, Column: 1}, "", "the file is empty; write policies: and a policy below it")
	default:
		return first.Content[0]
	}
	return nil
}

// malformed notes a mistake that the YAML reader found.
func (r *reader) malformed(err error) {
	at, problem := &yaml.Node{Line: 1, Column: 1}, err.Error()
	if loading, ok := errors.AsType[*yaml.LoadError](err); ok {
		at.Line, at.Column = max(loading.Mark.Line, 1), max(loading.Mark.Column, 1)
		problem = loading.Message
	}
	r.note(at, "", "is not YAML: %s", fault.Line(problem))
}

// mapping calls each for every entry of n and returns the names, and whether n is a
// mapping. It notes duplicate names: one reader would take the first, another the last.
func (r *reader) mapping(n *yaml.Node, path string, each func(name string, at, value *yaml.Node)) ([]string, bool) {
	if n.Kind != yaml.MappingNode {
		r.note(n, path, "is %s; write name: value lines below it", kindOf(n))
		return nil, false
	}
	var seen []string
	for i := 0; i+1 < len(n.Content); i += 2 {
		at, value := n.Content[i], n.Content[i+1]
		name := at.Value
		switch {
		case at.Kind != yaml.ScalarNode || at.Tag == "!!null" || at.Tag == "!!merge":
			r.note(at, path, "has a name that is not text")
		case slices.Contains(seen, name):
			r.note(at, path, "%s is given twice; leave one out", fault.Quote(name))
		default:
			seen = append(seen, name)
			each(name, at, value)
		}
	}
	return seen, true
}

// text reads a scalar as it is written, whatever type YAML gives it: a bucket may be named
// 123, and a variable no. It notes what read finds wrong with the text.
func (r *reader) text(n *yaml.Node, path string, read func(text string) error) {
	switch {
	case n.Kind != yaml.ScalarNode:
		r.note(n, path, "is %s; write one value", kindOf(n))
	case n.Tag == "!!null" || n.Value == "":
		r.note(n, path, "is empty")
	case !slices.Contains([]string{"!!str", "!!int", "!!float", "!!bool", "!!timestamp"}, n.Tag):
		r.note(n, path, "has the tag %s; write plain text", fault.Quote(n.Tag))
	default:
		if err := read(n.Value); err != nil {
			r.note(n, path, "%s", err)
		}
	}
}

// texts returns the entries of a list that pass check. It notes an empty list, and an entry
// that appears twice.
func (r *reader) texts(n *yaml.Node, path string, check func(string) error) []string {
	if n.Kind != yaml.SequenceNode {
		r.note(n, path, "is %s; write a list, as in [a, b]", kindOf(n))
		return nil
	}
	if len(n.Content) == 0 {
		r.note(n, path, "is an empty list")
	}
	var texts []string
	for i, entry := range n.Content {
		r.text(entry, fmt.Sprintf("%s[%d]", path, i), func(text string) error {
			if slices.Contains(texts, text) {
				return fmt.Errorf("%s is given twice; leave one out", fault.Quote(text))
			}
			err := check(text)
			if err == nil {
				texts = append(texts, text)
			}
			return err
		})
	}
	return texts
}

func kindOf(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.AliasNode:
		// Aliases can make a small file expand to gigabytes, and are hard to read.
		return "an alias"
	case n.Tag == "!!null" || n.Value == "":
		return "empty"
	}
	return "a single value"
}
