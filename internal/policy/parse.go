package policy

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"upcall/internal/callbackspec"
	"upcall/internal/fault"
	"upcall/internal/ossrule"
)

// MaxFile is the largest policy file in bytes.
const MaxFile = 1 << 20

// anyType stands for no limit among content types.
const anyType = "*/*"

// A Set is the policies of one file. It is never changed.
type Set struct{ policies map[string]*Policy }

// Policy returns the policy with that name, or nil.
func (s *Set) Policy(name string) *Policy { return s.policies[name] }

// Names returns the names of all policies, sorted.
func (s *Set) Names() []string { return slices.Sorted(maps.Keys(s.policies)) }

// Parse reads a policy file. hosts says which ones callback URLs may name. The error is a
// [fault.List] whose fields begin with line and column.
func Parse(data []byte, hosts callbackspec.Hosts) (*Set, error) {
	if len(data) > MaxFile {
		return nil, fault.At("1:1", "the file is larger than %d bytes; was another one named by mistake?", MaxFile)
	}
	p := parser{hosts: hosts}
	set := &Set{make(map[string]*Policy)}
	if root := p.document(data); root != nil {
		p.file(root, set)
	}
	if len(p.faults) > 0 {
		return nil, p.faults
	}
	return set, nil
}

type parser struct {
	reader
	hosts callbackspec.Hosts
}

func (p *parser) file(root *yaml.Node, set *Set) {
	found := false
	ok := p.mapping(root, "", func(name string, at, value *yaml.Node) {
		if name != "policies" {
			p.note(at, "", "%s is not known here; write policies", fault.Quote(name))
			return
		}
		found = true
		p.mapping(value, "policies", func(name string, at, value *yaml.Node) {
			path := "policies." + fault.Short(name)
			if err := CheckName(name); err != nil {
				p.note(at, "policies", "%s", err)
				return
			}
			set.policies[name] = p.policy(name, path, value)
		})
		if len(value.Content) == 0 && value.Kind == yaml.MappingNode {
			p.note(value, "policies", "holds no policy")
		}
	})
	if ok && !found {
		p.note(root, "", "there is no policies; write policies: and a policy below it")
	}
}

// CheckName tells what keeps name from being the name of a policy.
func CheckName(name string) error {
	notAllowed := func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_')
	}
	if name == "" || len(name) > 64 || strings.ContainsFunc(name, notAllowed) {
		return fmt.Errorf("%s is no name for a policy; use 1 to 64 letters, digits, hyphens and underscores", fault.Quote(name))
	}
	return nil
}

// policy reads one policy and notes what it lacks.
func (p *parser) policy(name, path string, n *yaml.Node) *Policy {
	policy := &Policy{Name: name}
	seen := make(map[string]bool)
	ok := p.mapping(n, path, func(field string, at, value *yaml.Node) {
		path := path + "." + fault.Short(field)
		seen[field] = true
		switch Rule(field) {
		case RuleBuckets:
			policy.Buckets = p.texts(value, path, checkBucket)
		case RuleKeyPrefixes:
			policy.KeyPrefixes = p.templates(value, path, parsePrefix)
		case RuleKeyTemplates:
			policy.KeyTemplates = p.templates(value, path, func(s string) (Template, error) { return parseTemplate(s, templateVariables) })
		case RuleContentTypes:
			policy.ContentTypes = p.texts(value, path, checkContentType)
		case RuleMaxSize:
			policy.MaxSize = scalar(p, value, path, parseSize)
		case RuleMaxExpiry:
			policy.MaxExpiry = scalar(p, value, path, parseExpiry)
		case callbackURLs:
			policy.CallbackURLs = p.urls(value, path)
		case RuleRequiredVars:
			policy.RequiredVars = p.texts(value, path, checkVar)
		case RuleAllowedVars:
			policy.AllowedVars = p.texts(value, path, checkVar)
		default:
			p.note(at, path, "is not known here; a policy has %s", strings.Join(fields, ", "))
		}
	})
	if !ok {
		return policy
	}
	for _, field := range required {
		if !seen[field] {
			p.note(n, path+"."+field, "is required; leaving it out does not mean \"anything\"")
		}
	}
	if !seen[string(RuleKeyPrefixes)] && !seen[string(RuleKeyTemplates)] {
		p.note(n, path, "has neither key_prefixes nor key_templates: give one, or both")
	}
	for _, variable := range policy.AllowedVars {
		if slices.Contains(policy.RequiredVars, variable) {
			p.note(n, path, "the variable %s is both required and allowed; leave it out of allowed_vars", variable)
		}
	}
	return policy
}

// callbackURLs is a field of policies that no request can break.
const callbackURLs = "callback_urls"

var (
	required = []string{string(RuleBuckets), string(RuleContentTypes), string(RuleMaxSize), string(RuleMaxExpiry), callbackURLs}
	fields   = append(slices.Clone(required),
		string(RuleKeyPrefixes), string(RuleKeyTemplates), string(RuleRequiredVars), string(RuleAllowedVars))
)

// texts returns the entries of a list that check finds nothing wrong with.
func (p *parser) texts(n *yaml.Node, path string, check func(string) error) []string {
	var texts []string
	for _, item := range p.list(n, path) {
		if err := check(item.text); err != nil {
			p.note(item.at, item.path, "%s", err)
			continue
		}
		texts = append(texts, item.text)
	}
	return texts
}

func (p *parser) templates(n *yaml.Node, path string, parse func(string) (Template, error)) []Template {
	var templates []Template
	for _, item := range p.list(n, path) {
		t, err := parse(item.text)
		if err != nil {
			p.note(item.at, item.path, "%s %s", fault.Quote(item.text), err)
			continue
		}
		templates = append(templates, t)
	}
	return templates
}

func scalar[T any](p *parser, n *yaml.Node, path string, parse func(string) (T, error)) T {
	var value T
	if text, ok := p.text(n, path); ok {
		var err error
		if value, err = parse(text); err != nil {
			p.note(n, path, "%s", err)
		}
	}
	return value
}

func (p *parser) urls(n *yaml.Node, path string) []string {
	urls := p.texts(n, path, func(url string) error {
		// An application must not choose the address itself: it would have OSS send
		// upload tokens to a stranger, or call into a network of ours.
		err := callbackspec.Parameter{URLs: []string{url}, Body: "bucket=${bucket}"}.Check(p.hosts)
		if broken, ok := errors.AsType[fault.Fault](err); ok {
			return fmt.Errorf("%s; %s", broken.Problem, broken.Fix)
		}
		return err
	})
	if len(urls) > callbackspec.MaxURLs {
		p.note(n, path, "has %d URLs; OSS takes %d", len(urls), callbackspec.MaxURLs)
	}
	return urls
}

func checkBucket(name string) error {
	if ossrule.CheckBucket(name) != nil {
		return fmt.Errorf("%s is no bucket; use 3 to 63 lower-case letters, digits and hyphens", fault.Quote(name))
	}
	return nil
}

func checkContentType(pattern string) error {
	group, kind, ok := strings.Cut(pattern, "/")
	// The characters that RFC 6838, section 4.2, allows in names, in lower case.
	notAllowed := func(r rune) bool {
		return !('a' <= r && r <= 'z' || '0' <= r && r <= '9' || strings.ContainsRune("!#$&-^_.+", r))
	}
	name := func(s string) bool { return s != "" && !strings.ContainsFunc(s, notAllowed) }
	if pattern == anyType || ok && name(group) && (kind == "*" || name(kind)) {
		return nil
	}
	return fmt.Errorf("%s is no content type; write image/jpeg, image/* or */*, in lower case", fault.Quote(pattern))
}

func parseExpiry(s string) (time.Duration, error) {
	d, err := ParseDuration(s)
	switch {
	case err != nil:
		return 0, err
	case d > ossrule.MaxExpiry || d%time.Second != 0:
		return 0, fmt.Errorf("%s is out of range; OSS allows whole seconds up to 7d", fault.Quote(s))
	}
	return d, nil
}

// checkVar refuses names that a callback cannot carry.
func checkVar(name string) error {
	if name == callbackspec.TokenField {
		return fmt.Errorf("%s is the upload token's name; choose another one", fault.Quote(name))
	}
	if err := (callbackspec.Vars{callbackspec.VarPrefix + name: ""}).Check(); err != nil {
		if broken, ok := errors.AsType[fault.Fault](err); ok {
			return fmt.Errorf("%s %s; %s", fault.Quote(name), broken.Problem, broken.Fix)
		}
		return err
	}
	if slices.Contains(callbackspec.SystemVariables, name) {
		return fmt.Errorf("%s is a name that the callback's body has already; choose another one", fault.Quote(name))
	}
	return nil
}
