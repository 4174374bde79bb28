package issue

import (
	"cmp"
	"errors"
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
	// custom ones and the token. The token is added to a template that lacks it.
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
	token := ""
	if withToken {
		token = tokenSample
	}
	_, err := c.encode(hosts, token)
	return err
}

// encode builds both documents, with token in them unless it is "". The error joins all
// mistakes.
func (c *CallbackSpec) encode(hosts callbackspec.Hosts, token string) (oss.CallbackHeaders, error) {
	vars := make(callbackspec.Vars) // without a size it needs no heap
	names := make([]string, 0, len(c.Vars)+1)
	for name, value := range c.Vars {
		vars[callbackspec.VarPrefix+name] = value
		names = append(names, name)
	}
	slices.Sort(names)
	if token != "" {
		vars[callbackspec.TokenVar] = token
	}
	encoded := oss.CallbackHeaders{InQuery: c.InQuery}
	var broken, wrong error
	if len(vars) > 0 {
		encoded.CallbackVar, wrong = vars.Document()
	}
	encoded.Callback, broken = c.parameter(hosts, vars, names)
	if err := fault.Join(broken, wrong); err != nil {
		return oss.CallbackHeaders{}, err
	}
	return encoded, nil
}

// parameter builds the document that depends on the names of the variables, sorted, and
// not on their values. The error joins all mistakes.
func (c *CallbackSpec) parameter(hosts callbackspec.Hosts, vars callbackspec.Vars, names []string) (callbackspec.Document, error) {
	_, withToken := vars[callbackspec.TokenVar]
	body, unfit := c.body(names, withToken)
	if unfit != nil {
		body = "bucket=${bucket}" // so that the other fields are checked too
	}
	spec := callbackspec.Parameter{URLs: c.URLs, Host: c.Host, SNI: c.sni(), Body: body, BodyType: c.BodyType}
	document, broken := spec.Document(hosts)
	switch {
	case c.Body == "" && unfit != nil:
		unfit = c.checkNames(names) // finds all of them
	case c.Body != "" && unfit != nil: // the token has no place; that may be part of a larger mistake
		unfit = cmp.Or(callbackspec.CheckBody(c.Body, c.BodyType), unfit)
	case c.Body != "" && !errors.Is(broken, callbackspec.ErrTemplate):
		unfit = fault.Join(vars.CheckReferences(body), callbackspec.CheckBody(body, c.BodyType))
	}
	if c.Body != "" {
		unfit = fault.Join(c.checkNames(names), unfit)
	}
	return document, fault.Join(unfit, broken)
}

func (c *CallbackSpec) body(names []string, withToken bool) (string, error) {
	switch {
	case c.Body == "":
		return callbackspec.DefaultBody(c.BodyType, names, withToken)
	case withToken:
		return callbackspec.WithToken(c.Body, c.BodyType)
	default:
		return c.Body, nil
	}
}

// checkNames reports custom variables with a name of the token or the default template.
// [callbackspec.Vars.Check] reports invalid names.
func (c *CallbackSpec) checkNames(names []string) error {
	var faults fault.List
	for _, name := range names {
		variable := callbackspec.VarPrefix + name
		switch {
		case name == callbackspec.TokenField:
			faults.AddNew(ErrReserved, variable, "choose another name", "is the upload token's name")
		case c.Body == "" && name == strings.ToLower(name) && slices.Contains(callbackspec.SystemVariables, name):
			_, err := callbackspec.DefaultBody(c.BodyType, []string{name}, false)
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
