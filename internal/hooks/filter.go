package hooks

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"regexp"
	"slices"
	"strings"

	"upcall/internal/callbackspec"
	"upcall/internal/event"
	"upcall/internal/fault"
	"upcall/internal/feed"
	"upcall/internal/ossrule"
	"upcall/internal/webhook"
)

// ErrFilter says that a filter can match nothing, or is not written as filters are.
var ErrFilter = errors.New("wrong filter")

// maxTerms is how many values each part of a filter may have, so that no endpoint makes the
// reading of the log slow for the others.
const maxTerms = 100

// maxTerm is the longest value in bytes: a key is at most 1,023 bytes long.
const maxTerm = 1024

// A Filter says which messages an endpoint gets: those that match each part that has values.
// A part matches if one of its values does, except that all of Vars must.
type Filter struct {
	On          []webhook.Kind    `json:"on"`           // what happened; never empty in an Endpoint
	Buckets     []string          `json:"buckets"`      // names
	KeyPrefixes []string          `json:"key_prefixes"` // beginnings of object keys
	KeyGlobs    []string          `json:"key_globs"`    // patterns of whole keys: * and ? stop at a slash, ** does not
	MimeTypes   []string          `json:"mime_types"`   // image/png or image/*, without parameters
	Vars        map[string]string `json:"vars"`         // custom variables by name, without x:
}

// A matcher is a [Filter] that is ready for use.
type matcher struct {
	Filter
	vars  []variable
	globs []*regexp.Regexp
}

// A variable is one that an event must have.
type variable struct {
	name, value string
	quoted      []byte // the value as most events have it in JSON
}

// matcher returns a checked filter's matcher.
func (f Filter) matcher() *matcher {
	m := &matcher{Filter: f}
	for _, name := range slices.Sorted(maps.Keys(f.Vars)) {
		m.vars = append(m.vars, variable{name, f.Vars[name], callbackspec.AppendQuoted(nil, f.Vars[name])})
	}
	for _, glob := range f.KeyGlobs {
		if compiled, err := compileGlob(glob); err == nil { // else it was not checked, and matches nothing
			m.globs = append(m.globs, compiled)
		}
	}
	return m
}

// Matcher returns a function that reports whether an event is one of the filter's, whatever
// happened to it. The error is of all mistakes; their fields are members of the filter's JSON.
func (f Filter) Matcher() (func(*event.Event) bool, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	m := f.matcher()
	m.On = []webhook.Kind{webhook.Recorded}
	return func(e *event.Event) bool { return m.matches(webhook.Recorded, e) }, nil
}

// matches reports whether the endpoint gets to know what happened to an event's upload.
func (m *matcher) matches(kind webhook.Kind, e *event.Event) bool {
	c := &e.Callback
	return m.matchesParts(kind, c.Bucket, c.Object, c.MimeType) && m.matchesVars(c.Vars)
}

// matchesSight is matches for an entry that is not decoded yet.
func (m *matcher) matchesSight(seen *feed.Sight) bool {
	return m.matchesParts(seen.Kind, seen.Bucket, seen.Object, seen.MimeType) && (len(m.vars) == 0 || m.matchesVars(seen.Vars()))
}

// matchesParts looks at all but the variables. Every filter sees every entry of the log, so nothing
// is allocated and the cheapest parts come first.
func (m *matcher) matchesParts(kind webhook.Kind, bucket, object, contentType string) bool {
	if !slices.Contains(m.On, kind) || len(m.Buckets) > 0 && !slices.Contains(m.Buckets, bucket) {
		return false
	}
	return (len(m.KeyPrefixes) == 0 || slices.ContainsFunc(m.KeyPrefixes, func(p string) bool { return strings.HasPrefix(object, p) })) &&
		(len(m.MimeTypes) == 0 || matchesTypes(m.MimeTypes, contentType)) &&
		(len(m.KeyGlobs) == 0 || slices.ContainsFunc(m.globs, func(g *regexp.Regexp) bool { return g.MatchString(object) }))
}

func (m *matcher) matchesVars(vars map[string]json.RawMessage) bool {
	return !slices.ContainsFunc(m.vars, func(v variable) bool { return !v.matches(vars[v.name]) })
}

func matchesTypes(patterns []string, contentType string) bool {
	mediaType, _, _ := strings.Cut(contentType, ";")
	mediaType = strings.ToLower(strings.TrimSpace(mediaType))
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		if family, ok := strings.CutSuffix(pattern, "*"); ok {
			return strings.HasPrefix(mediaType, family)
		}
		return pattern == mediaType
	})
}

// matches compares with a variable's JSON. The value of anything but a string is its JSON:
// OSS's own variables are strings, but templates can hold numbers.
func (v *variable) matches(raw json.RawMessage) bool {
	switch {
	case raw == nil:
		return false
	case bytes.Equal(raw, v.quoted):
		return true
	case raw[0] != '"':
		return string(raw) == v.value
	}
	var text string
	return bytes.IndexByte(raw, '\\') >= 0 && json.Unmarshal(raw, &text) == nil && text == v.value
}

// check returns all mistakes in a filter. Their fields are members of its JSON.
func (f *Filter) check() error {
	var faults fault.List
	for i, kind := range f.On {
		if !slices.Contains(webhook.Kinds, kind) {
			faults.AddNew(ErrFilter, "on", "write recorded, disputed or gone", "%s is not an event", fault.Quote(string(kind)))
		} else if slices.Contains(f.On[:i], kind) {
			faults.AddNew(ErrFilter, "on", "leave one out", "%s is given twice", kind)
		}
	}
	faults.Add(
		each("buckets", f.Buckets, ossrule.CheckBucket),
		each("key_prefixes", f.KeyPrefixes, checkText),
		each("key_globs", f.KeyGlobs, checkGlob),
		each("mime_types", f.MimeTypes, checkType),
	)
	if len(f.Vars) > maxTerms {
		faults.AddNew(ErrFilter, "vars", "make two endpoints", "there are more than %d", maxTerms)
	}
	for _, name := range slices.Sorted(maps.Keys(f.Vars)) {
		switch {
		case strings.HasPrefix(name, callbackspec.VarPrefix):
			faults.AddNew(ErrFilter, "vars", "write "+fault.Name(strings.TrimPrefix(name, callbackspec.VarPrefix)),
				"%s: events hold custom variables without x:", fault.Quote(name))
		case name == "":
			faults.AddNew(ErrFilter, "vars", "write NAME=VALUE", "a variable has no name")
		}
		faults.Add(fault.In("vars", checkText(name+f.Vars[name])))
	}
	return faults.Err()
}

// each checks the values of one part.
func each(field string, values []string, check func(string) error) error {
	var faults fault.List
	if len(values) > maxTerms {
		faults.AddNew(ErrFilter, field, "make two endpoints", "there are more than %d", maxTerms)
	}
	for i, value := range values {
		err := check(value)
		if err == nil && slices.Contains(values[:i], value) {
			err = fault.New(ErrFilter, "", "leave one out", "%s is given twice", fault.Quote(value))
		}
		faults.Add(fault.In(field, err))
	}
	return faults.Err()
}

func checkText(text string) error {
	switch {
	case text == "":
		return fault.New(ErrFilter, "", "leave it out to match everything", "a value is empty")
	case len(text) > maxTerm:
		return fault.New(ErrFilter, "", "", "%s has %d bytes; the most is %d", fault.Quote(text), len(text), maxTerm)
	case !callbackspec.Storable(text):
		return fault.New(ErrFilter, "", "", "%s is not UTF-8, or holds NUL", fault.Quote(text))
	}
	return nil
}

func checkGlob(glob string) error {
	if err := checkText(glob); err != nil {
		return err
	}
	if _, err := compileGlob(glob); err != nil {
		return fault.New(ErrFilter, "", err.Error(), "%s is not a glob", fault.Quote(glob))
	}
	return nil
}

func checkType(pattern string) error {
	if err := checkText(pattern); err != nil {
		return err
	}
	family, kind, ok := strings.Cut(pattern, "/")
	isBad := func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`()<>@,;:\"/[]?=*`, r) }
	if kind == "*" && family != "*" {
		kind = "any"
	}
	if !ok || family == "" || kind == "" || strings.ContainsFunc(family+kind, isBad) || pattern != strings.ToLower(pattern) {
		return fault.New(ErrFilter, "", "write image/png, or image/* for all images, in lower case and without parameters",
			"%s is not a MIME type", fault.Quote(pattern))
	}
	return nil
}
