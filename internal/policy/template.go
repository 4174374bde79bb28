package policy

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"upcall/internal/fault"
)

// The vocabulary of templates. It is closed: an unknown name is a mistake, and nothing
// reads the environment, a header or a file.
const (
	varDate     = "date"      // the day in UTC, 2026-11-22
	varUUID     = "uuid"      // random, new each time it is used
	varFilename = "filename"  // the request's file name, made harmless
	varAPIKeyID = "apikey.id" // the ID of the API key
)

var (
	templateVariables = []string{varDate, varUUID, varFilename, varAPIKeyID}
	// prefixVariables have the same value in any two requests with one API key on one day.
	prefixVariables = []string{varDate, varAPIKeyID}
)

// anyKey is the prefix that allows any key.
const anyKey = "*"

// checkPrefix accepts the beginning of keys: anyKey, or a template that ends with a slash.
func checkPrefix(source string) error {
	if source == anyKey {
		return nil
	}
	folder, ok := strings.CutSuffix(source, "/")
	if !ok {
		// photos would allow photos-of-others/1.jpg as well.
		return fmt.Errorf("%s is not a key template: a prefix ends with a slash; write %q, or %q alone for any key",
			fault.Quote(source), source+"/", anyKey)
	}
	return checkTemplate(folder, prefixVariables)
}

func checkKeyTemplate(source string) error { return checkTemplate(source, templateVariables) }

// checkTemplate accepts a template whose variables are in vocabulary, and whose keys have
// the shape that checkShape demands whatever its variables hold.
func checkTemplate(source string, vocabulary []string) error {
	bad := func(problem string, args ...any) error {
		return fmt.Errorf("%s is not a key template: %s", fault.Quote(source), fmt.Sprintf(problem, args...))
	}
	if source == "" {
		return bad("it is empty")
	}
	known := strings.Join(vocabulary, "} or ${")
	for rest := source; ; {
		_, after, found := strings.Cut(rest, "$")
		if !found {
			break
		}
		at := len(source) - len(after) - 1
		name, tail, closed := strings.Cut(after, "}")
		name, opened := strings.CutPrefix(name, "{")
		switch {
		case !opened:
			return bad("the $ at byte %d does not start a variable; write ${%s}", at, known)
		case !closed:
			return bad("the ${ at byte %d is not closed", at)
		case !slices.Contains(vocabulary, name):
			return bad("${%s} is not known here; use ${%s}", fault.Name(name), known)
		}
		rest = tail
	}
	// A variable stands for at least one character and no slash, and a file name has no
	// leading or trailing dot, so this one key has the shape of all.
	if err := checkShape(os.Expand(source, func(string) string { return "x" })); err != nil {
		return fmt.Errorf("%s %w", fault.Quote(source), err)
	}
	return nil
}
