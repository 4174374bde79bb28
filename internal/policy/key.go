package policy

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"upcall/internal/fault"
)

// key returns the object's key: the one that the application chose under one of the
// policy's prefixes, or the one that a template makes.
func (c *check) key() string {
	r := &c.request
	switch {
	case r.Key != "" && r.KeyTemplate != "":
		c.violate(RuleKey, "key_template", "is given along with key; leave one out")
		return r.Key
	case r.Key != "":
		if err := checkShape(r.Key); err != nil {
			c.violate(RuleKey, "key", "%s %s", fault.Quote(r.Key), err)
		} else if !c.underPrefix(r.Key) {
			c.violate(RuleKeyPrefixes, "key", "%s is under none of the policy's prefixes: %s", fault.Quote(r.Key), c.prefixes())
		}
		return r.Key
	case r.KeyTemplate != "":
		return c.chosenTemplate()
	case len(c.policy.KeyTemplates) > 0:
		return c.expand(c.policy.KeyTemplates[0])
	}
	c.violate(RuleKey, "key", "is missing; the policy has no template to make one from, so give a key under %s", c.prefixes())
	return ""
}

// chosenTemplate takes the policy's templates as they are, and any other whose keys are
// such as the application might choose itself.
func (c *check) chosenTemplate() string {
	given := c.request.KeyTemplate
	for _, t := range c.policy.KeyTemplates {
		if t.source == given {
			return c.expand(t)
		}
	}
	template, err := parseTemplate(given, templateVariables)
	if err != nil {
		c.violate(RuleKey, "key_template", "%s %s", fault.Quote(given), err)
		return ""
	}
	key := c.expand(template)
	if key != "" && !c.underPrefix(key) {
		c.violate(RuleKeyTemplates, "key_template",
			"%s is not among the policy's templates (%s), and its keys are under none of the prefixes (%s)",
			fault.Quote(given), sources(c.policy.KeyTemplates), c.prefixes())
	}
	return key
}

// expand returns the key, or "" where the request lacks a file name for it.
func (c *check) expand(t Template) string {
	if t.uses(varFilename) && c.request.Filename == "" {
		c.violate(RuleKeyTemplates, "filename", "is missing; the template %s needs it", fault.Quote(t.source))
		return ""
	}
	return t.expand(values{
		date:     c.now.UTC().Format("2006-01-02"),
		uuid:     newUUID,
		filename: c.request.Filename,
		apiKeyID: c.request.APIKeyID,
	})
}

// newUUID is random throughout, where the ids of uploads tell the time: a user who may read
// the bucket but not list it must not be able to guess keys.
func newUUID() string { return uuid.NewString() }

func (c *check) underPrefix(key string) bool {
	for _, t := range c.policy.KeyPrefixes {
		if t.source == anyKey {
			return true
		}
		prefix := t.expand(values{date: c.now.UTC().Format("2006-01-02"), apiKeyID: c.request.APIKeyID})
		if rest, ok := strings.CutPrefix(key, prefix); ok && rest != "" {
			return true
		}
	}
	return false
}

func (c *check) prefixes() string { return sources(c.policy.KeyPrefixes) }

func sources(templates []Template) string {
	var names []string
	for _, t := range templates {
		names = append(names, t.source)
	}
	return orNone(names)
}

var errShape = errors.New("is no key for an upload")

// checkShape refuses keys that are not read alike everywhere. OSS keeps any bytes, but
// a key with .. or empty segments climbs out of its prefix wherever it becomes a path:
// in a proxy or CDN before the bucket, or in a tool that copies the bucket to a disk.
// Control characters end lines in logs and lists; those that turn the direction of
// writing around make exe.gpj of what is jpg.exe.
func checkShape(key string) error {
	bad := func(problem string, args ...any) error {
		return fmt.Errorf("%w: %s", errShape, fmt.Sprintf(problem, args...))
	}
	if !utf8.ValidString(key) {
		return bad("it is not UTF-8")
	}
	if i := strings.IndexFunc(key, unprintable); i >= 0 {
		return bad("it holds a control or formatting character at byte %d", i)
	}
	if strings.Contains(key, `\`) {
		return bad("it holds a backslash, which some systems take for a slash")
	}
	for segment := range strings.SplitSeq(key, "/") {
		switch segment {
		case "":
			return bad("it starts or ends with a slash, or holds two in a row")
		case ".", "..":
			return bad("it holds the segment %s, which paths take for another folder", segment)
		}
	}
	return nil
}

func unprintable(r rune) bool { return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) }
