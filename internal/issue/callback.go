package issue

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"upcall/internal/callbackspec"
	"upcall/internal/presign"
	"upcall/internal/uploadtoken"
)

// A Callback is what OSS shall send, and to whom, once the upload is stored.
type Callback struct {
	URLs     []string              // 1 to 5, tried in order
	Host     string                // the callback's Host header; "" means the URL's
	SNI      *bool                 // send the server name over TLS; nil means yes if a URL is https
	BodyType callbackspec.BodyType // "" means Form
	Carriage presign.Carriage

	// Body is the template. "" means the default one, which holds every system
	// variable, the custom ones and the token. A token is added to a template that
	// lacks it.
	Body string

	// Vars are the custom variables, by name without "x:".
	Vars map[string]string
}

// tokenSample stands for a token where only the rules are checked, sizes included.
var tokenSample = strings.Repeat("t", uploadtoken.MaxLen)

// documents are the two JSON documents of a callback, plain and encoded.
type documents struct {
	parameter, vars json.RawMessage
	signed          presign.Callback
}

// encode builds both documents, with token in them unless it is "". The error joins all
// mistakes. A nil callback has no documents.
func (c *Callback) encode(reach callbackspec.Reach, token string) (documents, error) {
	if c == nil {
		return documents{}, nil
	}
	vars := make(callbackspec.Vars, len(c.Vars)+1)
	for name, value := range c.Vars {
		vars[callbackspec.VarPrefix+name] = value
	}
	if token != "" {
		vars[callbackspec.TokenVar] = token
	}
	d := documents{signed: presign.Callback{Carriage: c.Carriage}}
	errs := []error{c.checkNames()}
	var err error
	if len(vars) > 0 {
		d.vars, d.signed.Vars, err = vars.Document()
		errs = append(errs, err)
	}
	body, err := c.body(token != "")
	if err != nil {
		if c.Body != "" { // of the default template checkNames has said all
			errs = append(errs, err)
		}
		body = "bucket=${bucket}" // so that the other fields are checked too
	}
	parameter := callbackspec.Parameter{URLs: c.URLs, Host: c.Host, SNI: c.sni(), Body: body, BodyType: c.BodyType}
	var broken error
	d.parameter, d.signed.Parameter, broken = parameter.Document(reach)
	errs = append(errs, broken)
	if c.Body != "" && err == nil && !errors.Is(broken, callbackspec.ErrTemplate) {
		errs = append(errs, vars.CheckReferences(body))
	}
	if err := errors.Join(errs...); err != nil {
		return documents{}, err
	}
	return d, nil
}

func (c *Callback) body(withToken bool) (string, error) {
	switch {
	case c.Body == "":
		return callbackspec.DefaultBody(c.BodyType, slices.Collect(maps.Keys(c.Vars)), withToken)
	case withToken:
		return callbackspec.WithToken(c.Body, c.BodyType)
	default:
		return c.Body, nil
	}
}

// checkNames reports custom variables whose names the token or the default template
// has. Names that are wrong in themselves are left to [callbackspec.Vars.Check].
func (c *Callback) checkNames() error {
	var errs []error
	for name := range c.Vars {
		variable := callbackspec.VarPrefix + name
		switch {
		case name == callbackspec.TokenField:
			errs = append(errs, &callbackspec.FieldError{Field: variable, Problem: "is the upload token's name", Mend: "choose another name", Rule: ErrReserved})
		case c.Body == "" && name == strings.ToLower(name) && slices.Contains(callbackspec.SystemVariables, name):
			_, err := callbackspec.DefaultBody(c.BodyType, []string{name}, false)
			errs = append(errs, err)
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) }) // a map has no order
	return errors.Join(errs...)
}

// sni is on for https unless it was turned off: without the server name most HTTPS
// receivers cannot pick their certificate, and OSS's default is not to send it.
func (c *Callback) sni() bool {
	if c.SNI != nil {
		return *c.SNI
	}
	return slices.ContainsFunc(c.URLs, func(u string) bool {
		return len(u) >= 8 && strings.EqualFold(u[:8], "https://")
	})
}
