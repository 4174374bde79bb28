package callbackspec

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"upcall/internal/fault"
)

// VarPrefix starts the name of every custom variable.
const VarPrefix = "x:"

// Vars are the custom variables of one upload: the JSON document that the
// x-oss-callback-var header, or the callback-var query parameter, carries in Base64.
// Each key starts with "x:" and is lower case. A value reaches the receiver only if
// the template refers to it.
type Vars map[string]string

// JSON returns the document, with sorted keys, unchecked.
func (v Vars) JSON() []byte { return appendMembers(make([]byte, 0, 256), v, sortedKeys(v)) }

// Document checks v and returns its document. The error is a [fault.List] of all mistakes.
func (v Vars) Document() (Document, error) {
	names := sortedKeys(v)
	d, tooLong := newDocument("callback-var", appendMembers(make([]byte, 0, 256), v, names))
	if err := fault.Join(v.checkMembers(names), tooLong); err != nil {
		return Document{}, err
	}
	return d, nil
}

// Terms returns what [Content.Terms] does of a body of the default template with these
// variables, the upload token's not among them. It is what a notification of OSS, which has
// the variables but no body, says to an upload token; for a body of another shape it may not be
// the same.
func (v Vars) Terms([]byte) (vars, rest []byte) {
	leaves := make([]leaf, 0, len(v))
	for _, name := range sortedKeys(v) {
		leaves = append(leaves, leaf{path: strings.TrimPrefix(name, VarPrefix), text: v[name]})
	}
	return appendTerms(Form, leaves, shape{})
}

// DecodeVars reads the value of an x-oss-callback-var header and checks it.
func DecodeVars(encoded string) (Vars, error) {
	doc, err := decodeDocument("callback-var", encoded)
	if err != nil {
		return nil, err
	}
	vars := make(Vars, len(doc))
	for _, name := range sortedKeys(doc) {
		value := doc[name]
		if kindOf(value) != "string" {
			return nil, fault.New(ErrNotJSON, fault.Name(name), "give a string", "holds a JSON %s", kindOf(value))
		}
		vars[name] = unquote(value)
	}
	if err := vars.Check(); err != nil {
		return nil, err
	}
	return vars, nil
}

// Check applies OSS's rules. The error is a [fault.List] of all mistakes.
func (v Vars) Check() error {
	_, err := v.Document()
	return err
}

func (v Vars) checkMembers(names []string) error {
	var faults fault.List
	for _, name := range names {
		faults.Add(checkVarName(name))
		if value := v[name]; !Storable(value) {
			faults.AddNew(ErrVarValue, fault.Name(name), "give UTF-8 without NUL, or Base64", "has a value that is not text")
		}
	}
	return faults.Err()
}

// CheckReferences compares the variables with their template: a variable that the template
// does not name would never arrive, and one that it names but that has no value arrives in
// a form that OSS does not document.
func (v Vars) CheckReferences(template string) error {
	pieces, err := parseTemplate(template)
	if err != nil {
		return err
	}
	named := make(map[string]bool)
	var faults fault.List
	for _, piece := range pieces {
		if !strings.HasPrefix(piece.variable, VarPrefix) || named[piece.variable] {
			continue
		}
		named[piece.variable] = true
		if _, ok := v[piece.variable]; !ok {
			faults.Add(wrongTemplate("give the variable a value or remove it",
				"refers to ${%s}, which has no value", piece.variable))
		}
	}
	for _, name := range sortedKeys(v) {
		if !named[name] {
			faults.AddNew(ErrTemplate, fault.Name(name), "add ${"+name+"} to the template",
				"is not in the callback body and would not arrive")
		}
	}
	return faults.Err()
}

func checkVarName(name string) error {
	wrong := func(problem, fix string) error {
		return fault.New(ErrVarName, fault.Name(name), fix, "%s", problem)
	}
	bare, ok := strings.CutPrefix(name, VarPrefix)
	switch {
	case ok && validName(bare):
		return nil
	case strings.HasPrefix(name, "X:"):
		return wrong("does not start with x:", "write the x in lower case")
	case !ok:
		return wrong("does not start with x:", "write "+VarPrefix+fault.Name(strings.ToLower(name)))
	case bare == "":
		return wrong("has no name after x:", "write x:uid, say")
	}
	c, _ := utf8.DecodeRuneInString(bare[strings.IndexFunc(bare, notInName):])
	return wrong(fmt.Sprintf("holds the character %q", c), "use lower-case letters, digits, hyphen, underscore and dot")
}

// validName reports whether a custom variable may have this name after its prefix.
func validName(bare string) bool { return bare != "" && !strings.ContainsFunc(bare, notInName) }

func notInName(c rune) bool {
	return !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '_' || c == '-' || c == '.')
}
