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

// A reader walks over the nodes of a file and notes every mistake. It reads nodes and
// not into structs, as that stops at the first mistake and forgets where it was.
type reader struct{ faults fault.List }

// note notes a mistake: the field is the line and column of n, and path, as in
// policies.photos.max_size. No path is the file as a whole.
func (r *reader) note(n *yaml.Node, path, problem string, args ...any) {
	at := fmt.Sprintf("%d:%d", n.Line, n.Column)
	if path != "" {
		at += ": " + path
	}
	r.faults.AddAt(at, problem, args...)
}

// document returns the one document of a file, or nil.
func (r *reader) document(data []byte) *yaml.Node {
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	if err != nil {
		r.faults.Add(fmt.Errorf("read YAML: %w", err))
		return nil
	}
	var first, second yaml.Node
	start := &yaml.Node{Line: 1, Column: 1}
	switch err := loader.Load(&first); {
	case errors.Is(err, io.EOF):
		r.note(start, "", "the file is empty; write policies: and a policy below it")
		return nil
	case err != nil:
		r.malformed(err)
		return nil
	}
	switch err := loader.Load(&second); {
	case err == nil:
		r.note(&second, "", "the file holds a second document; keep all policies in one")
		return nil
	case !errors.Is(err, io.EOF):
		r.malformed(err)
		return nil
	}
	if len(first.Content) != 1 {
		r.note(start, "", "the file is empty; write policies: and a policy below it")
		return nil
	}
	return first.Content[0]
}

// malformed notes what the YAML reader itself says.
func (r *reader) malformed(err error) {
	at, problem := &yaml.Node{Line: 1, Column: 1}, err.Error()
	if loading, ok := errors.AsType[*yaml.LoadError](err); ok {
		at.Line, at.Column = max(loading.Mark.Line, 1), max(loading.Mark.Column, 1)
		problem = loading.Message
	}
	r.note(at, "", "is not YAML: %s", fault.Line(problem))
}

// mapping calls each for every entry of n, and notes names that stand twice: one reader
// would take the first, another the last.
func (r *reader) mapping(n *yaml.Node, path string, each func(name string, at, value *yaml.Node)) bool {
	if n.Kind != yaml.MappingNode {
		r.note(n, path, "is %s; write name: value lines below it", kindOf(n))
		return false
	}
	var seen []string
	for i := 0; i+1 < len(n.Content); i += 2 {
		at, value := n.Content[i], n.Content[i+1]
		name := at.Value
		switch {
		case at.Kind != yaml.ScalarNode || at.Tag == "!!null" || at.Tag == "!!merge":
			r.note(at, path, "has a name that is no text")
		case slices.Contains(seen, name):
			r.note(at, path, "%s is given twice; leave one out", fault.Quote(name))
		default:
			seen = append(seen, name)
			each(name, at, value)
		}
	}
	return true
}

// text returns a scalar as it is written, whatever type YAML takes it for: a bucket may
// be named 123, and a variable no.
func (r *reader) text(n *yaml.Node, path string) (string, bool) {
	switch {
	case n.Kind != yaml.ScalarNode:
		r.note(n, path, "is %s; write one value", kindOf(n))
		return "", false
	case n.Tag == "!!null" || n.Value == "":
		r.note(n, path, "is empty")
		return "", false
	case !slices.Contains([]string{"!!str", "!!int", "!!float", "!!bool", "!!timestamp"}, n.Tag):
		r.note(n, path, "has the tag %s; write plain text", fault.Quote(n.Tag))
		return "", false
	}
	return n.Value, true
}

// An item is one text of a list, and where it stands.
type item struct {
	text string
	at   *yaml.Node
	path string
}

// list returns the texts of a list that is not empty.
func (r *reader) list(n *yaml.Node, path string) []item {
	if n.Kind != yaml.SequenceNode {
		r.note(n, path, "is %s; write a list, as in [a, b]", kindOf(n))
		return nil
	}
	if len(n.Content) == 0 {
		r.note(n, path, "is an empty list")
		return nil
	}
	var items []item
	for i, entry := range n.Content {
		at := fmt.Sprintf("%s[%d]", path, i)
		text, ok := r.text(entry, at)
		switch {
		case !ok:
		case slices.ContainsFunc(items, func(other item) bool { return other.text == text }):
			r.note(entry, at, "%s is given twice; leave one out", fault.Quote(text))
		default:
			items = append(items, item{text, entry, at})
		}
	}
	return items
}

func kindOf(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.AliasNode:
		// They make files that unfold to gigabytes, and policies are read by people.
		return "an alias"
	case n.Tag == "!!null" || n.Value == "":
		return "empty"
	}
	return "a single value"
}
