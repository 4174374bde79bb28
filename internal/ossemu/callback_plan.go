package ossemu

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"upcall/internal/callbackspec"
	"upcall/internal/fault"
)

// A plan is what an upload asks to happen after it; nil means no callback.
type plan struct {
	parameter callbackspec.Parameter
	vars      callbackspec.Vars

	image       map[string]string // the imageInfo variables, see Server.inspect
	brokenImage error             // why there are none although the content starts as an image
}

// planFromRequest reads the callback of a PutObject or CompleteMultipartUpload from
// the headers or the query, and never from both: what was signed in one place must not
// be overruled in the other.
func (s *Server) planFromRequest(c *call) (*plan, error) {
	encoded, err := oneCarrier(c, "x-oss-callback", "callback")
	if err != nil {
		return nil, err
	}
	vars, err := oneCarrier(c, "x-oss-callback-var", "callback-var")
	if err != nil || encoded == "" {
		return nil, err
	}
	p, err := decodePlan(encoded)
	if p == nil || err != nil {
		return nil, err
	}
	if vars != "" {
		if p.vars, err = callbackspec.DecodeVars(vars); err != nil {
			return nil, callbackError(err, "callback-var", vars)
		}
	}
	return p, nil
}

func oneCarrier(c *call, header, parameter string) (string, error) {
	carried := c.r.Header.Values(header)
	if c.query.has(parameter) {
		carried = append(slices.Clone(carried), c.query[parameter])
	}
	switch len(carried) {
	case 0:
		return "", nil
	case 1:
		return carried[0], nil
	}
	return "", badArgument(parameter, "", "The "+parameter+" is carried more than once: use the header or the query, not both.",
		"0007-00000027")
}

// planFromForm reads the callback of a PostObject: each custom variable is a form
// field of its own.
func (s *Server) planFromForm(c *call, form formFields) (*plan, error) {
	for _, carrier := range []string{"callback", "callback-var"} {
		if c.query.has(carrier) || c.r.Header.Get("x-oss-"+carrier) != "" {
			return nil, badArgument(carrier, "", "The "+carrier+" of a PostObject must be a form field.", "0007-00000027")
		}
	}
	encoded := form.get("callback")
	if encoded == "" {
		return nil, nil
	}
	p, err := decodePlan(encoded)
	if p == nil || err != nil {
		return nil, err
	}
	p.vars = callbackspec.Vars{}
	for _, name := range slices.Sorted(maps.Keys(form)) {
		if !strings.HasPrefix(strings.ToLower(name), callbackspec.VarPrefix) {
			continue
		}
		// The name alone: the size limit of callback-var does not hold for forms.
		if err := (callbackspec.Vars{name: ""}).Check(); err != nil {
			return nil, callbackError(err, name, form[name])
		}
		p.vars[name] = form[name]
	}
	return p, nil
}

// decodePlan reads a callback parameter. Without a URL there is no callback.
func decodePlan(encoded string) (*plan, error) {
	parameter, err := callbackspec.DecodeParameter(encoded, callbackspec.AnyHost)
	if errors.Is(err, callbackspec.ErrNoURL) {
		return nil, nil
	}
	if err != nil {
		return nil, callbackError(err, "callback", encoded)
	}
	return &plan{parameter: parameter}, nil
}

// A refusal is OSS's answer to a broken rule. An empty message means that OSS's words
// are not documented: then the rule's own are given.
type refusal struct {
	rule        error
	message, ec string
}

// refusals in the order in which they are looked for (EC pages 0007-…, 2023 to 2026;
// "Upload callback" troubleshooting).
var refusals = []refusal{
	{rule: callbackspec.ErrNotBase64, ec: "0007-00000002"},
	{rule: callbackspec.ErrNotJSON, message: "The callback configuration is not json format."},
	{rule: callbackspec.ErrURLCount, ec: "0007-00000005"},
	{rule: callbackspec.ErrPort, ec: "0007-00000004"},
	{rule: callbackspec.ErrNotASCII, ec: "0007-00000004"},
	{rule: callbackspec.ErrIPv6, ec: "0007-00000004"},
	{rule: callbackspec.ErrPrivateAddress, message: "Private address is forbidden to callback.", ec: "0007-00000008"},
	{rule: callbackspec.ErrURL, ec: "0007-00000004"},
	{rule: callbackspec.ErrEmptyBody, ec: "0007-00000011"},
	{rule: callbackspec.ErrBodyType, ec: "0007-00000012"},
	{rule: callbackspec.ErrAdditionalHeader, ec: "0007-00000026"},
}

// callbackError turns the mistakes in a callback or callback-var into OSS's answer to
// the first of them.
func callbackError(err error, argument, value string) error {
	field, ok := errors.AsType[fault.Fault](err)
	if !ok {
		return badArgument(argument, value, err.Error(), "")
	}
	if argument == "callback" {
		argument = field.Field
	}
	if errors.Is(field, callbackspec.ErrTemplate) && strings.Contains(field.Problem, "lone $") {
		return badArgument("ReplaceKeyPrefix", value, "Left brace must be adjacent to dollar sign.", "0007-00000105")
	}
	if argument == "callback-var" && errors.Is(field, callbackspec.ErrNotJSON) {
		return badArgument(argument, value, field.Error(), "0007-00000103")
	}
	for _, r := range refusals {
		if errors.Is(field, r.rule) {
			message := r.message
			if message == "" {
				message = field.Error()
			}
			return badArgument(argument, value, message, r.ec)
		}
	}
	return badArgument(argument, value, field.Error(), "")
}
