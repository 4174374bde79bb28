package ossemu

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
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
	// What the template makes is not checked: OSS has signed callbacks of the type of JSON that are
	// none, with a comma for a colon or as name=value pairs.
	return &plan{parameter: parameter}, nil
}

// A refusal is OSS's answer to a mistake in one place. An empty message means that OSS's
// words are not documented: then the answer has the words of the rule.
type refusal struct {
	message, ec string
}

// refusals by the field of the callback, and by the rule where a field has several (EC
// pages 0007-…, 2023 to 2026; "Upload callback" troubleshooting).
var (
	fieldRefusals = map[string]refusal{
		"callbackUrl":       {ec: "0007-00000004"},
		"callbackHost":      {ec: "0007-00000009"},
		"callbackBody":      {ec: "0007-00000011"},
		"callbackBodyType":  {ec: "0007-00000012"},
		"callbackSNI":       {message: "The callback sni is invalid."},
		"additionalHeaders": {ec: "0007-00000026"},
	}
	ruleRefusals = []struct {
		rule error
		refusal
	}{
		{callbackspec.ErrURLCount, refusal{ec: "0007-00000005"}},
		{callbackspec.ErrPrivateAddress, refusal{"Private address is forbidden to callback.", "0007-00000008"}},
		{callbackspec.ErrTemplate, refusal{ec: "0007-00000105"}},
	}
	callbackRefusals = map[error]refusal{ // of the document as a whole
		callbackspec.ErrTooLarge:  {ec: "0007-00000001"},
		callbackspec.ErrNotBase64: {ec: "0007-00000002"},
		callbackspec.ErrNotJSON:   {message: "The callback configuration is not json format.", ec: "0007-00000003"},
	}
	// The pages of 101 and 104 do not show their numbers, which follow from those of the
	// pages before and after them.
	varRefusals = map[error]refusal{
		callbackspec.ErrTooLarge:  {ec: "0007-00000101"},
		callbackspec.ErrNotBase64: {ec: "0007-00000102"},
		callbackspec.ErrNotJSON:   {ec: "0007-00000103"},
	}
	noStringRefusal = refusal{ec: "0007-00000104"} // a variable's value is not a string
)

// callbackError turns the mistakes in a callback or callback-var into OSS's answer to
// the first of them. value is the argument as it was sent.
func callbackError(err error, argument, value string) error {
	found, ok := errors.AsType[fault.Fault](err)
	if !ok {
		return badArgument(argument, value, err.Error(), "")
	}
	var r refusal
	switch {
	case argument == "callback-var" && found.Field != argument && found.Rule == callbackspec.ErrNotJSON:
		r = noStringRefusal
	case argument == "callback-var":
		r = varRefusals[found.Rule]
	case argument == "callback" && found.Field == "callback":
		r = callbackRefusals[found.Rule]
		if text, err := base64.StdEncoding.DecodeString(value); err == nil && found.Rule == callbackspec.ErrNotJSON {
			value = string(text)
		}
	case argument == "callback":
		argument, value, r = fieldRefusal(found, value)
	}
	return badArgument(argument, value, cmp.Or(r.message, found.Error()), r.ec)
}

// fieldRefusal is the answer to a mistake in a field of a callback that is JSON in Base64.
// OSS names the callback or the field as the argument and shows the decoded JSON, or the
// text of a template.
func fieldRefusal(found fault.Fault, encoded string) (argument, value string, r refusal) {
	document, _ := base64.StdEncoding.DecodeString(encoded) // it was decoded before
	argument, value, r = found.Field, string(document), fieldRefusals[found.Field]
	for _, known := range ruleRefusals {
		if errors.Is(found, known.rule) {
			r = known.refusal
		}
	}
	switch {
	case found.Field == "callbackBody" && found.Rule == callbackspec.ErrNotJSON:
		r = refusal{} // the page about a body that is not a string does not show its number
	case errors.Is(found, callbackspec.ErrTemplate):
		var callback struct{ CallbackBody string }
		_ = json.Unmarshal(document, &callback) // likewise
		argument, value = "ReplaceKeyPrefix", callback.CallbackBody
		if strings.Contains(found.Problem, "lone $") {
			r.message = "Left brace must be adjacent to dollar sign."
		}
	case found.Field == "callbackSNI":
		argument = "callback"
	}
	return argument, value, r
}
