package callbackspec

import (
	"encoding/json"
	"slices"
	"strings"

	"upcall/internal/fault"
	"upcall/internal/ossrule"
)

// A BodyType says how OSS fills the template in, and is the Content-Type of the
// callback.
type BodyType string

const (
	Form BodyType = "application/x-www-form-urlencoded" // OSS's default
	JSON BodyType = "application/json"
)

// ParseBodyType reads form or json, or the type as OSS writes it.
func ParseBodyType(s string) (t BodyType, ok bool) {
	switch strings.ToLower(s) {
	case "form", string(Form):
		return Form, true
	case "json", string(JSON):
		return JSON, true
	}
	return "", false
}

// Limits of the two documents (Callback reference, 2021 edition).
const (
	MaxURLs              = 5
	MaxDocument          = 5 << 10 // bytes of Base64
	maxAdditionalHeaders = 10
)

// Hosts says which hosts a callback URL may name.
type Hosts int

const (
	// PublicHosts are those that OSS can call: no private address, no name without a dot.
	PublicHosts Hosts = iota
	// AnyHost is for an emulator, which may call its own machine.
	AnyHost
)

// A Parameter is the callback parameter: the JSON document that the x-oss-callback
// header, or the callback query parameter or form field, carries in Base64.
type Parameter struct {
	URLs     []string // callbackUrl: 1 to 5, tried in order until the first success; a missing scheme means http
	Host     string   // callbackHost: the Host header of the callback; "" means the URL's own
	SNI      bool     // callbackSNI: send the server name in the TLS handshake; most HTTPS receivers need it
	Body     string   // callbackBody: the template, see Expand
	BodyType BodyType // callbackBodyType: "" means Form

	// SignatureVersion is "" or "1.0". The undocumented beta "2.0" is refused, because
	// nothing outside OSS can verify it.
	SignatureVersion string

	// AdditionalHeaders are sent with the callback: at most 10, unsigned under
	// signature version 1.0. Names are lower-case letters, digits and hyphens.
	AdditionalHeaders map[string]string
}

// JSON returns the document, unchecked.
func (p Parameter) JSON() []byte {
	doc := make([]byte, 0, 384+len(p.Body)+len(p.Body)/4)
	doc = appendMember(append(doc, '{'), "callbackUrl", strings.Join(p.URLs, ";"))
	if p.Host != "" {
		doc = appendMember(append(doc, ','), "callbackHost", p.Host)
	}
	doc = append(doc, `,"callbackBody":`...)
	beginning, rest := cutBeginning(p.Body)
	doc = append(append(doc, '"'), beginning...)
	doc = append(appendEscaped(doc, rest), '"')
	if p.BodyType != "" {
		doc = appendMember(append(doc, ','), "callbackBodyType", string(p.BodyType))
	}
	if p.SNI {
		doc = append(doc, `,"callbackSNI":true`...)
	}
	if p.SignatureVersion != "" {
		doc = appendMember(append(doc, ','), "signatureVersion", p.SignatureVersion)
	}
	if len(p.AdditionalHeaders) > 0 {
		doc = append(doc, `,"additionalHeaders":`...)
		doc = appendMembers(doc, p.AdditionalHeaders, sortedKeys(p.AdditionalHeaders))
	}
	return append(doc, '}')
}

// Document checks p and returns its document. The error is a [fault.List] of all mistakes.
func (p Parameter) Document(hosts Hosts) (Document, error) {
	d, tooLong := newDocument("callback", p.JSON())
	err := fault.Join(p.checkURLs(hosts), p.checkHost(), p.checkBodyType(), p.checkTemplate(),
		p.checkSignatureVersion(), p.checkAdditionalHeaders(), tooLong)
	if err != nil {
		return Document{}, err
	}
	return d, nil
}

// DecodeParameter reads the value of an x-oss-callback header and checks it as
// [Parameter.Check] does. Names of fields are case-sensitive; unknown fields are ignored.
func DecodeParameter(encoded string, hosts Hosts) (Parameter, error) {
	doc, err := decodeDocument("callback", encoded)
	if err != nil {
		return Parameter{}, err
	}
	var p Parameter
	var urls string
	var headers map[string]*string // pointers tell null from ""
	for _, f := range []struct {
		name, kind string
		into       any
	}{
		{"callbackUrl", "string", &urls},
		{"callbackHost", "string", &p.Host},
		{"callbackBody", "string", &p.Body},
		{"callbackBodyType", "string", &p.BodyType},
		{"callbackSNI", "boolean", &p.SNI},
		{"signatureVersion", "string", &p.SignatureVersion},
		{"additionalHeaders", "object of strings", &headers},
	} {
		value, ok := doc[f.name]
		if !ok {
			continue
		}
		if kindOf(value) == "null" || json.Unmarshal([]byte(value), f.into) != nil {
			return Parameter{}, fault.New(ErrNotJSON, f.name, "give a "+f.kind, "holds a JSON %s", kindOf(value))
		}
	}
	if urls != "" {
		p.URLs = strings.Split(urls, ";")
	}
	for name, value := range headers {
		if value == nil {
			return Parameter{}, fault.New(ErrNotJSON, "additionalHeaders", "give an object of strings", "holds a JSON null")
		}
		if p.AdditionalHeaders == nil {
			p.AdditionalHeaders = make(map[string]string, len(headers))
		}
		p.AdditionalHeaders[name] = *value
	}
	if err := p.Check(hosts); err != nil {
		return Parameter{}, err
	}
	return p, nil
}

// Check applies OSS's rules. The error is a [fault.List] of all mistakes.
func (p Parameter) Check(hosts Hosts) error {
	_, err := p.Document(hosts)
	return err
}

func (p Parameter) checkURLs(hosts Hosts) error {
	if len(p.URLs) == 0 || len(p.URLs) == 1 && p.URLs[0] == "" {
		return fault.New(ErrNoURL, "callbackUrl", "give the URL that OSS is to call", "is empty")
	}
	if len(p.URLs) > MaxURLs {
		return fault.New(ErrURLCount, "callbackUrl", "OSS tries at most 5: leave some out", "has %d URLs", len(p.URLs))
	}
	var faults fault.List
	for _, raw := range p.URLs {
		faults.Add(checkURL(raw, hosts))
	}
	return faults.Err()
}

func (p Parameter) checkHost() error {
	if p.Host == "" {
		return nil
	}
	// With a line break or a space in Host, anyone who chooses it could add header lines to
	// the callback.
	if _, rule := splitHostPort(p.Host); rule != nil {
		return fault.New(rule, "callbackHost", "give a host name or an IPv4 address, with a port from 1 to 65535 if need be",
			"is %s", fault.Quote(p.Host))
	}
	return nil
}

func (p Parameter) checkBodyType() error {
	switch p.BodyType {
	case "", Form, JSON:
		return nil
	}
	return fault.New(ErrBodyType, "callbackBodyType", "use "+string(Form)+" or "+string(JSON), "is %q", string(p.BodyType))
}

func (p Parameter) checkTemplate() error {
	switch {
	case p.Body == "":
		return fault.New(ErrEmptyBody, "callbackBody", "give a template such as bucket=${bucket}&object=${object}", "is empty")
	case !Storable(p.Body):
		return fault.New(ErrTemplate, "callbackBody", "give UTF-8 without NUL", "is not text")
	}
	_, rest := cutBeginning(p.Body)
	return eachPiece(rest, func(piece) {})
}

func (p Parameter) checkSignatureVersion() error {
	if p.SignatureVersion == "" || p.SignatureVersion == "1.0" {
		return nil
	}
	return fault.New(ErrSignatureVersion, "signatureVersion", `leave it out or use "1.0": no other version is documented`,
		"is %q", p.SignatureVersion)
}

// reservedHeaders must not be in additionalHeaders (OSS error code 0007-00000026).
var reservedHeaders = []string{
	"content-type", "content-length", "host", "authorization", "user-agent",
	"content-md5", "expect", "upgrade", "keep-alive",
}

func (p Parameter) checkAdditionalHeaders() error {
	var faults fault.List
	wrong := func(name, problem, fix string) {
		faults.AddNew(ErrAdditionalHeader, "additionalHeaders", fix, "%q %s", name, problem)
	}
	if n := len(p.AdditionalHeaders); n > maxAdditionalHeaders {
		faults.AddNew(ErrAdditionalHeader, "additionalHeaders", "OSS allows 10", "holds %d headers", n)
	}
	for _, name := range sortedKeys(p.AdditionalHeaders) {
		switch {
		case name == "" || !ossrule.IsName(name):
			wrong(name, "is not a name that OSS allows", "use lower-case letters, digits and hyphens")
		case strings.HasPrefix(name, "x-oss-"), slices.Contains(reservedHeaders, name):
			wrong(name, "is set by OSS itself", "choose another name")
		case strings.ContainsFunc(p.AdditionalHeaders[name], func(c rune) bool { return c < ' ' || c >= 0x7f }):
			// A line break would start further header lines.
			wrong(name, "has a value with a control or non-ASCII character", "percent-encode it")
		}
	}
	return faults.Err()
}
