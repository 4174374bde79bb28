package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"upcall/internal/fault"
)

// The vocabulary of templates. It is closed: a name that is not known is a mistake, and
// nothing reads the environment, a header or a file.
const (
	varDate     = "date"      // the day in UTC, 2026-11-22
	varUUID     = "uuid"      // random, new for each upload
	varFilename = "filename"  // the request's file name, made harmless
	varAPIKeyID = "apikey.id" // whose key it is
)

var (
	templateVariables = []string{varDate, varUUID, varFilename, varAPIKeyID}
	// prefixVariables are those that two requests of one key agree on.
	prefixVariables = []string{varDate, varAPIKeyID}
)

// anyKey stands for no limit among prefixes.
const anyKey = "*"

var errTemplate = errors.New("is no key template")

// A Template is a text with ${variables} in it.
type Template struct {
	source string
	parts  []part
}

// A part is a literal text or a variable.
type part struct{ literal, variable string }

// String returns the template as it was written.
func (t Template) String() string { return t.source }

func (t Template) uses(variable string) bool {
	return slices.ContainsFunc(t.parts, func(p part) bool { return p.variable == variable })
}

// values stand for the variables of one request.
type values struct {
	date, apiKeyID string
	filename       string // as the request gives it
	uuid           func() string
}

// expand fills t in. What stands for a variable is not looked at for further variables,
// so a file named ${apikey.id} stays one.
func (t Template) expand(v values) string {
	var b strings.Builder
	for _, p := range t.parts {
		switch p.variable {
		case "":
			b.WriteString(p.literal)
		case varDate:
			b.WriteString(v.date)
		case varUUID:
			b.WriteString(v.uuid())
		case varFilename:
			b.WriteString(sanitize(v.filename))
		case varAPIKeyID:
			b.WriteString(v.apiKeyID)
		}
	}
	return b.String()
}

// parseTemplate reads a template whose variables are among vocabulary, and whose keys,
// whatever its variables hold, have the shape that checkShape demands.
func parseTemplate(source string, vocabulary []string) (Template, error) {
	t, err := splitTemplate(source, vocabulary)
	if err != nil {
		return Template{}, err
	}
	// Each variable stands for at least one character and no slash, and a file name for
	// no leading or trailing dot, so this one key has the shape of all.
	sample := t.expand(values{date: "x", apiKeyID: "x", filename: "x", uuid: func() string { return "x" }})
	if err := checkShape(sample); err != nil {
		return Template{}, err
	}
	return t, nil
}

// parsePrefix reads the beginning of keys: anyKey, or a template that ends with a slash.
func parsePrefix(source string) (Template, error) {
	if source == anyKey {
		return Template{source: source}, nil
	}
	folder, ok := strings.CutSuffix(source, "/")
	if !ok {
		// photos would allow photos-of-others/1.jpg as well.
		return Template{}, fmt.Errorf("%w: a prefix ends with a slash; write %q, or %q alone for any key", errTemplate, source+"/", anyKey)
	}
	if _, err := parseTemplate(folder, prefixVariables); err != nil {
		return Template{}, err
	}
	return splitTemplate(source, prefixVariables)
}

func splitTemplate(source string, vocabulary []string) (Template, error) {
	if source == "" {
		return Template{}, fmt.Errorf("%w: it is empty", errTemplate)
	}
	t := Template{source: source}
	for rest := source; rest != ""; {
		literal, after, found := strings.Cut(rest, "$")
		if literal != "" {
			t.parts = append(t.parts, part{literal: literal})
		}
		if !found {
			break
		}
		at := len(source) - len(after) - 1
		name, tail, ok := strings.Cut(after, "}")
		name, opened := strings.CutPrefix(name, "{")
		known := strings.Join(vocabulary, "} or ${")
		switch {
		case !opened:
			return Template{}, fmt.Errorf("%w: the $ at byte %d starts no variable; write ${%s}", errTemplate, at, known)
		case !ok:
			return Template{}, fmt.Errorf("%w: the ${ at byte %d is not closed", errTemplate, at)
		case !slices.Contains(vocabulary, name):
			return Template{}, fmt.Errorf("%w: ${%s} is not known here; use ${%s}", errTemplate, fault.Name(name), known)
		}
		t.parts = append(t.parts, part{variable: name})
		rest = tail
	}
	return t, nil
}
