package callbackspec

import (
	"bytes"
	"cmp"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// Terms are what an upload fixes of its callback, in the form of [Content.Terms].
type Terms struct {
	Shape   []byte   // nil for a default template
	Vars    []byte   // the custom variables under their own names, with their values
	Rest    []byte   // all other fields: constants with their values, the others with their names
	Queries [][]byte // of the URLs, as of [Query], each once; nil if none has one
}

// DefaultTerms returns the terms of the default template with the variables of these
// names, without x: and sorted, and with the upload token.
func DefaultTerms(t BodyType, urls, names []string, vars Vars) Terms {
	leaves := make([]leaf, len(names))
	for i, name := range names {
		leaves[i] = leaf{path: name, text: vars[VarPrefix+name]}
	}
	terms := Terms{Queries: queries(urls)}
	terms.Vars, terms.Rest = appendTerms(t, leaves, shape{})
	return terms
}

// Terms returns what the template, these variables, the upload token's not among them, and
// the known system variables fix of a callback. The error is a [fault.Fault]: a template
// whose fields' names depend on what OSS fills in fixes nothing.
func (p Parameter) Terms(vars Vars, known Values) (Terms, error) {
	t := cmp.Or(p.BodyType, Form)
	leaves, s, err := p.leaves(t, vars, known)
	if err != nil {
		return Terms{}, err
	}
	terms := Terms{Shape: s.bytes(), Queries: queries(p.URLs)}
	terms.Vars, terms.Rest = appendTerms(t, leaves, s)
	return terms, nil
}

// leaves returns those that are not free, sorted, and how they are told apart.
func (p Parameter) leaves(t BodyType, vars Vars, known Values) ([]leaf, shape, error) {
	// Whatever OSS fills in differs between these two, and nothing else does.
	zero, one, err := p.filledIn(t, vars, nil)
	if err != nil {
		return nil, shape{}, err
	}
	// In these, only what the issuer does not know.
	issued, other := zero, one
	if len(known) > 0 {
		if issued, other, err = p.filledIn(t, vars, known); err == nil {
			err = checkPaths(zero, issued)
		}
		if err != nil {
			return nil, shape{}, err
		}
	}
	var s shape
	var listed []leaf
	for i, l := range issued {
		own, isOwn := ownNames[l.path]
		kind := constant
		switch value, ok := vars[VarPrefix+l.path]; {
		case isOwn && !zero[i].same(one[i]):
			s.open |= own.bit
			continue
		case !l.same(other[i]):
			kind = open
		case ok && value == l.text && !l.json:
			kind = variable
		}
		if isOwn {
			s.fixed |= own.bit
		}
		s.setKind(len(listed), kind)
		listed = append(listed, l)
	}
	return listed, s, nil
}

// filledIn returns the leaves twice, sorted, with different digits for whatever OSS fills in
// and is not known.
func (p Parameter) filledIn(t BodyType, vars Vars, known Values) (zero, one []leaf, err error) {
	var filled [2][]leaf
	for i, digit := range []string{"0", "1"} {
		values := Values{TokenVar: digit}
		for _, name := range SystemVariables {
			values[name] = digit
		}
		maps.Copy(values, known)
		maps.Copy(values, vars)
		body, err := Expand(p.Body, t, values)
		if err != nil {
			return nil, nil, err
		}
		_, content, err := Read(string(t), []byte(body), Fields{})
		if err != nil {
			return nil, nil, wrongTemplate(Fix(err), "makes a body that cannot be read, %s", err)
		}
		sortLeaves(content.leaves)
		filled[i] = content.leaves
	}
	return filled[0], filled[1], checkPaths(filled[0], filled[1])
}

func checkPaths(leaves, others []leaf) error {
	if slices.EqualFunc(leaves, others, func(a, b leaf) bool { return a.path == b.path }) {
		return nil
	}
	return wrongTemplate("write the names of fields as text, and only their values as variables",
		"has a variable in the name of a field, which the upload token could not cover")
}

func queries(urls []string) [][]byte {
	var queries [][]byte
	for _, u := range urls {
		_, _, path := splitURL(u)
		query := Query(path)
		if !slices.ContainsFunc(queries, func(q []byte) bool { return bytes.Equal(q, query) }) {
			queries = append(queries, query)
		}
	}
	if len(queries) == 1 && queries[0] == nil {
		return nil
	}
	return queries
}

// Query returns the names and values in the query of a request target, in a form in which
// neither the order of names nor how all are encoded counts; nil if there are none. It tells
// apart all that [Callback.AddQuery] does.
func Query(target string) []byte {
	_, query, _ := strings.Cut(target, "?")
	if query == "" {
		return nil
	}
	var pairs [][2]string
	for pair := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if pair != "" {
			pairs = append(pairs, [2]string{queryText(name), queryText(value)})
		}
	}
	slices.SortStableFunc(pairs, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	var all []byte
	for _, pair := range pairs {
		all = appendParts(all, pair[:]...)
	}
	return all
}

// unescaped returns what a percent-encoded text stands for, and other text as it is.
func unescaped(text string) string {
	if plain, err := url.QueryUnescape(text); err == nil && Storable(plain) {
		return plain
	}
	return text
}
