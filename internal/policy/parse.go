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

// anyType is the content type that allows any.
const anyType = "*/*"

// A Set holds the policies of one file. It does not change.
type Set struct{ policies map[string]*Policy }

// Policy returns the policy with that name, or nil.
func (s *Set) Policy(name string) *Policy { return s.policies[name] }

// Names returns the names of all policies, sorted.
func (s *Set) Names() []string { return slices.Sorted(maps.Keys(s.policies)) }

// Parse reads a policy file. hosts limits the hosts in callback URLs. The error is a
// [fault.List] whose fields begin with line and column.
func Parse(data []byte, hosts callbackspec.Hosts) (*Set, error) {
	if len(data) > MaxFile {
		return nil, fault.At("1:1", "the file is larger than %d bytes; is it the right file?", MaxFile)
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
	names, ok := p.mapping(root, "", func(name string, at, value *yaml.Node) {
		if name != "policies" {
			p.note(at, "", "%s is not known here; write policies", fault.Quote(name))
			return
		}
		_, ok := p.mapping(value, "policies", func(name string, at, value *yaml.Node) {
			if err := CheckName(name); err != nil {
				p.note(at, "policies", "%s", err)
				return
			}
			set.policies[name] = p.policy(name, "policies."+name, value)
		})
		if ok && len(value.Content) == 0 {
			p.note(value, "policies", "holds no policy")
		}
	})
	if ok && !slices.Contains(names, "policies") {
		p.note(root, "", "policies is missing; write policies: and a policy below it")
	}
}

// CheckName returns an error if no policy can have that name.
func CheckName(name string) error {
	notAllowed := func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_')
	}
	if name == "" || len(name) > 64 || strings.ContainsFunc(name, notAllowed) {
		return fmt.Errorf("%s is not a name for a policy; use 1 to 64 letters, digits, hyphens and underscores", fault.Quote(name))
	}
	return nil
}

// policy reads one policy and notes what it lacks.
func (p *parser) policy(name, path string, n *yaml.Node) *Policy {
	policy := &Policy{Name: name}
	lists := map[string]struct {
		texts *[]string
		check func(string) error
	}{
		RuleBuckets:      {&policy.Buckets, checkBucket},
		RuleKeyPrefixes:  {&policy.KeyPrefixes, checkPrefix},
		RuleKeyTemplates: {&policy.KeyTemplates, checkKeyTemplate},
		RuleContentTypes: {&policy.ContentTypes, checkContentType},
		callbackURLs:     {&policy.CallbackURLs, p.checkURL},
		RuleRequiredVars: {&policy.RequiredVars, checkVar},
		RuleAllowedVars:  {&policy.AllowedVars, checkVar},
	}
	seen, ok := p.mapping(n, path, func(field string, at, value *yaml.Node) {
		path := path + "." + fault.Short(field)
		list, isList := lists[field]
		switch {
		case isList:
			*list.texts = p.texts(value, path, list.check)
			if n := len(policy.CallbackURLs); field == callbackURLs && n > callbackspec.MaxURLs {
				p.note(value, path, "has %d URLs; OSS takes %d", n, callbackspec.MaxURLs)
			}
		case field == RuleMaxSize:
			p.text(value, path, func(text string) (err error) { policy.MaxSize, err = parseSize(text); return err })
		case field == RuleMaxExpiry:
			p.text(value, path, func(text string) (err error) { policy.MaxExpiry, err = parseExpiry(text); return err })
		default:
			p.note(at, path, "is not known here; a policy has %s", strings.Join(slices.Concat(required, optional), ", "))
		}
	})
	if !ok {
		return policy
	}
	for _, field := range required {
		if !slices.Contains(seen, field) {
			p.note(n, path+"."+field, "is required; leaving it out does not mean \"anything\"")
		}
	}
	if !slices.Contains(seen, RuleKeyPrefixes) && !slices.Contains(seen, RuleKeyTemplates) {
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
	required = []string{RuleBuckets, RuleContentTypes, RuleMaxSize, RuleMaxExpiry, callbackURLs}
	optional = []string{RuleKeyPrefixes, RuleKeyTemplates, RuleRequiredVars, RuleAllowedVars}
)

// checkURL limits callbacks to the hosts that OSS should call. An application must not
// choose the address itself: it could have OSS send upload tokens to a stranger, or call
// into a private network.
func (p *parser) checkURL(url string) error {
	return plain(callbackspec.Parameter{URLs: []string{url}, Body: "bucket=${bucket}"}.Check(p.hosts))
}

// plain returns what a check of another package says, without its name for the field.
func plain(err error) error {
	if broken, ok := errors.AsType[fault.Fault](err); ok {
		return fmt.Errorf("%s; %s", broken.Problem, broken.Fix)
	}
	return err
}

func checkBucket(name string) error {
	if ossrule.CheckBucket(name) != nil {
		return fmt.Errorf("%s is not a bucket name; use 3 to 63 lower-case letters, digits and hyphens", fault.Quote(name))
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
	return fmt.Errorf("%s is not a content type; write image/jpeg, image/* or */*, in lower case", fault.Quote(pattern))
}

func parseExpiry(s string) (time.Duration, error) {
	d, err := ParseDuration(s)
	if err == nil && (d > ossrule.MaxExpiry || d%time.Second != 0) {
		return 0, fmt.Errorf("%s is out of range; OSS allows whole seconds up to 7d", fault.Quote(s))
	}
	return d, err
}

// checkVar refuses names that a callback cannot carry.
func checkVar(name string) error {
	if bare, ok := strings.CutPrefix(name, callbackspec.VarPrefix); ok {
		return fmt.Errorf("%s starts with x:; write %s", fault.Quote(name), fault.Quote(bare))
	}
	if name == callbackspec.TokenField {
		return fmt.Errorf("%s is the upload token's name; choose another name", fault.Quote(name))
	}
	if err := plain(callbackspec.Vars{callbackspec.VarPrefix + name: ""}.Check()); err != nil {
		return fmt.Errorf("%s %w", fault.Quote(name), err)
	}
	if slices.Contains(callbackspec.SystemVariables, name) {
		return fmt.Errorf("%s is a name that the callback's body already uses; choose another name", fault.Quote(name))
	}
	return nil
}
