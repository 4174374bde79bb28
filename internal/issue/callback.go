package issue

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"

	"upcall/internal/callbackspec"
	"upcall/internal/fault"
	"upcall/internal/oss"
	"upcall/internal/uploadtoken"
)

// A CallbackSpec is what OSS sends, and where to, once the upload is stored.
type CallbackSpec struct {
	URLs     []string              // 1 to 5, tried in order
	Host     string                // the callback's Host header; "" means the URL's
	SNI      *bool                 // send the server name over TLS; nil means yes if a URL is https
	BodyType callbackspec.BodyType // "" means Form
	InQuery  bool                  // put it into the URL, for uploaders that cannot set headers

	// Body is the template. "" means the default one, with every system variable, the
	// custom ones and the token. Token and reqId are added to a template that lacks them.
	Body string

	// Vars are the custom variables, by name without "x:".
	Vars map[string]string
}

// tokenSample stands for a token when only the rules are checked, including sizes.
var tokenSample = strings.Repeat("t", uploadtoken.MaxLen)

// check returns all mistakes, joined; nil for no callback. withToken says that a token will
// be added.
func (c *CallbackSpec) check(hosts callbackspec.Hosts, withToken bool) error {
	if c == nil {
		return nil
	}
	_, err := c.draft(withToken).encode(hosts, tokenSample)
	return err
}

// A draft is a callback without its upload token.
type draft struct {
	*CallbackSpec
	withToken bool
	vars      callbackspec.Vars
	names     []string // of vars, without x:, sorted
	body      string
	unfit     error // why there is no body
}

func (c *CallbackSpec) draft(withToken bool) draft {
	d := draft{CallbackSpec: c, withToken: withToken, vars: make(callbackspec.Vars)} // without a size it needs no heap
	d.names = make([]string, 0, len(c.Vars)+1)
	for name, value := range c.Vars {
		d.vars[callbackspec.VarPrefix+name] = value
		d.names = append(d.names, name)
	}
	slices.Sort(d.names)
	d.body, d.unfit = c.body(d.names, withToken)
	return d
}

// terms returns what a token has to cover of the callback, of which these system variables
// are known.
func (d draft) terms(known callbackspec.Values) (callbackspec.Terms, error) {
	switch {
	case d.unfit != nil:
		return callbackspec.Terms{}, d.unfit
	case d.Body == "":
		return callbackspec.DefaultTerms(d.BodyType, d.URLs, d.names, d.vars), nil
	}
	return callbackspec.Parameter{URLs: d.URLs, Body: d.body, BodyType: d.BodyType}.Terms(d.vars, known)
}

// encode builds both documents, with the token in them. The error joins all mistakes.
func (d draft) encode(hosts callbackspec.Hosts, token string) (oss.CallbackHeaders, error) {
	encoded := oss.CallbackHeaders{InQuery: d.InQuery}
	var broken, wrong error
	encoded.Callback, broken = d.parameter(hosts)
	if d.withToken {
		d.vars[callbackspec.TokenVar] = token
	}
	if len(d.vars) > 0 {
		encoded.CallbackVar, wrong = d.vars.Document()
	}
	if err := fault.Join(broken, wrong); err != nil {
		return oss.CallbackHeaders{}, err
	}
	return encoded, nil
}

// parameter builds the document that depends on the names of the variables, and not on
// their values. The error joins all mistakes.
func (d draft) parameter(hosts callbackspec.Hosts) (callbackspec.Document, error) {
	body, unfit := d.body, d.unfit
	if unfit != nil {
		body = "bucket=${bucket}" // so that the other fields are checked too
	}
	spec := callbackspec.Parameter{URLs: d.URLs, Host: d.Host, SNI: d.sni(), Body: body, BodyType: d.BodyType}
	document, broken := spec.Document(hosts)
	switch {
	case d.Body == "" && unfit != nil:
		unfit = d.checkNames() // finds all of them
	case d.Body != "" && unfit != nil: // the token has no place; that may be part of a larger mistake
		unfit = cmp.Or(callbackspec.CheckBody(d.Body, d.BodyType), unfit)
	case d.Body != "" && !errors.Is(broken, callbackspec.ErrTemplate):
		unfit = d.checkBody()
	}
	if d.Body != "" {
		unfit = fault.Join(d.checkNames(), unfit)
	}
	return document, fault.Join(unfit, broken)
}

// checkBody checks a template of the caller's own.
func (d draft) checkBody() error {
	vars := d.vars
	if d.withToken {
		vars = maps.Clone(vars)
		vars[callbackspec.TokenVar] = ""
	}
	if err := fault.Join(vars.CheckReferences(d.body), callbackspec.CheckBody(d.body, d.BodyType)); err != nil || !d.withToken {
		return err
	}
	_, err := d.terms(nil)
	return err
}

func (c *CallbackSpec) body(names []string, withToken bool) (string, error) {
	switch {
	case c.Body == "":
		return callbackspec.DefaultBody(c.BodyType, names, withToken)
	case withToken:
		body, err := callbackspec.WithRequestID(c.Body, c.BodyType)
		if err != nil {
			return "", err
		}
		return callbackspec.WithToken(body, c.BodyType)
	default:
		return c.Body, nil
	}
}

// checkNames reports custom variables with a name of the token or the default template.
// [callbackspec.Vars.Check] reports invalid names.
func (d draft) checkNames() error {
	var faults fault.List
	for _, name := range d.names {
		variable := callbackspec.VarPrefix + name
		switch {
		case name == callbackspec.TokenField:
			faults.AddNew(ErrReserved, variable, "choose another name", "is the upload token's name")
		case d.Body == "" && name == strings.ToLower(name) && slices.Contains(callbackspec.SystemVariables, name):
			_, err := callbackspec.DefaultBody(d.BodyType, []string{name}, false)
			faults.Add(err)
		}
	}
	return faults.Err()
}

// sni is on for https by default: OSS sends no server name unless told to, and without it
// most HTTPS receivers cannot choose their certificate.
func (c *CallbackSpec) sni() bool {
	if c.SNI != nil {
		return *c.SNI
	}
	return slices.ContainsFunc(c.URLs, func(u string) bool {
		return len(u) >= 8 && strings.EqualFold(u[:8], "https://")
	})
}
