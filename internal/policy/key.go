package policy

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"upcall/internal/fault"
	"upcall/internal/ossrule"
)

// key returns the object key: the one that the application chose under one of the
// policy's prefixes, or one made from a template.
func (c *check) key() string {
	r := &c.request
	switch {
	case r.KeyPrefix != "":
		return c.prefix()
	case r.Key != "" && r.KeyTemplate != "":
		c.violate(RuleKey, "key_template", "is given together with key; leave one out")
		return r.Key
	case r.Key != "":
		if err := checkShape(r.Key); err != nil {
			c.violate(RuleKey, "key", "%s %s", fault.Quote(r.Key), err)
		} else if !c.underPrefix(r.Key) {
			c.violate(RuleKeyPrefixes, "key", "%s is under none of the policy's prefixes: %s",
				fault.Quote(r.Key), orNone(c.policy.KeyPrefixes))
		}
		return r.Key
	case r.KeyTemplate != "":
		return c.chosenTemplate()
	case len(c.policy.KeyTemplates) > 0:
		return c.expand(c.policy.KeyTemplates[0])
	}
	c.violate(RuleKey, "key", "is missing; the policy has no template to make one from, so give a key under %s",
		orNone(c.policy.KeyPrefixes))
	return ""
}

// prefix returns what the keys of a form begin with. Whoever has the form may write any key under it, also over what others
// have uploaded there, and again until it expires.
func (c *check) prefix() string {
	prefix := c.request.KeyPrefix
	if c.request.Key != "" || c.request.KeyTemplate != "" {
		c.violate(RuleKey, "key_prefix", "is given together with key or key_template; leave one out")
		return prefix
	}
	if err := plain(ossrule.CheckPrefix(prefix)); err != nil {
		c.violate(RuleKey, "key_prefix", "%s %s", fault.Quote(prefix), err)
	} else if err := checkShape(strings.TrimSuffix(prefix, "/")); err != nil {
		c.violate(RuleKey, "key_prefix", "%s %s", fault.Quote(prefix), err)
	} else if !c.underPrefix(prefix + "x") {
		c.violate(RuleKeyPrefixes, "key_prefix", "%s is under none of the policy's prefixes: %s",
			fault.Quote(prefix), orNone(c.policy.KeyPrefixes))
	}
	return prefix
}

// chosenTemplate expands the template that the request names: one of the policy's, or one
// that makes only keys that the application may choose itself.
func (c *check) chosenTemplate() string {
	template := c.request.KeyTemplate
	if slices.Contains(c.policy.KeyTemplates, template) {
		return c.expand(template)
	}
	if err := checkKeyTemplate(template); err != nil {
		c.violate(RuleKey, "key_template", "%s", err)
		return ""
	}
	key := c.expand(template)
	if key != "" && !c.underPrefix(key) {
		c.violate(RuleKeyTemplates, "key_template",
			"%s is not among the policy's templates (%s), and its keys are under none of the prefixes (%s)",
			fault.Quote(template), orNone(c.policy.KeyTemplates), orNone(c.policy.KeyPrefixes))
	}
	return key
}

// expand returns the key, or "" if the template needs a file name and the request has none.
func (c *check) expand(template string) string {
	if strings.Contains(template, "${"+varFilename+"}") && c.request.Filename == "" {
		c.violate(RuleKeyTemplates, "filename", "is missing; the template %s needs it", fault.Quote(template))
		return ""
	}
	key := os.Expand(template, c.value)
	if err := checkShape(key); err != nil { // %2 and a file name that starts with e are a dot
		c.violate(RuleKeyTemplates, "filename", "%s %s", fault.Quote(key), err)
	}
	return key
}

// value returns the value of a variable. It is not expanded again, so a file may be named
// ${apikey.id}.
func (c *check) value(variable string) string {
	switch variable {
	case varDate:
		return c.now.UTC().Format(time.DateOnly)
	case varUUID:
		// Fully random, unlike upload IDs, which tell the time: a user who may read the
		// bucket but not list it must not be able to guess keys.
		return uuid.NewString()
	case varFilename:
		return sanitize(c.request.Filename)
	}
	return c.request.APIKeyID
}

func (c *check) underPrefix(key string) bool {
	return slices.ContainsFunc(c.policy.KeyPrefixes, func(prefix string) bool {
		rest, ok := strings.CutPrefix(key, os.Expand(prefix, c.value))
		return prefix == anyKey || ok && rest != ""
	})
}

// Prefixes returns the prefixes under which an API key may choose object keys at a time; "*" is any.
func (p *Policy) Prefixes(apiKeyID string, now time.Time) []string {
	c := check{policy: p, request: Request{APIKeyID: apiKeyID}, now: now}
	prefixes := make([]string, len(p.KeyPrefixes))
	for i, prefix := range p.KeyPrefixes {
		prefixes[i] = os.Expand(prefix, c.value)
	}
	return prefixes
}

// checkShape refuses keys that some programs read differently. OSS stores any bytes, but
// a key with .. or empty segments leaves its prefix wherever it becomes a path: in a proxy
// or CDN before the bucket, or in a tool that copies the bucket to a disk. Control
// characters end lines in logs and lists; those that change the direction of writing make
// jpg.exe look like exe.gpj. Some of those programs decode a path once more than OSS does, so
// the key must keep its shape however often it is decoded.
func checkShape(key string) error {
	if !utf8.ValidString(key) {
		return errors.New("is not a key for an upload: it is not UTF-8")
	}
	how := ""
	for {
		if problem := misread(key); problem != "" {
			return fmt.Errorf("is not a key for an upload: %sit holds %s", how, problem)
		}
		decoded := unescape(key)
		if decoded == key {
			return nil
		}
		key, how = decoded, "percent-decoded, "
	}
}

// misread says what in a key some programs read differently, or "".
func misread(key string) string {
	if i := strings.IndexFunc(key, unprintable); i >= 0 {
		return fmt.Sprintf("a control or formatting character at byte %d", i)
	}
	if strings.Contains(key, `\`) {
		return "a backslash, which some systems read as a slash"
	}
	for i := range len(key) {
		if key[i] == 0xc0 || key[i] == 0xc1 { // %c0%ae, for example, an overlong form of the dot
			return "a byte that is never UTF-8, but that lenient programs read as another character"
		}
	}
	for segment := range strings.SplitSeq(key, "/") {
		if segment == "" {
			return "an empty segment: it starts or ends with a slash, or has two in a row"
		}
		// Windows drops dots and spaces at the end of a name, and Java servers what follows a semicolon.
		name, _, _ := strings.Cut(segment, ";")
		if strings.Contains(name, ".") && strings.Trim(name, ". ") == "" {
			return fmt.Sprintf("the segment %s, which paths read as another folder", segment)
		}
	}
	return ""
}

// unescape decodes a text once, and leaves what does not encode a byte.
func unescape(text string) string {
	if !strings.Contains(text, "%") {
		return text
	}
	decoded := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if text[i] == '%' && i+2 < len(text) {
			if b, err := hex.DecodeString(text[i+1 : i+3]); err == nil {
				decoded = append(decoded, b[0])
				i += 2
				continue
			}
		}
		decoded = append(decoded, text[i])
	}
	return string(decoded)
}

func unprintable(r rune) bool { return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) }
