package callbackspec

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// A BodyType says how OSS fills the template in, and is the Content-Type of the
// callback.
type BodyType string

const (
	Form BodyType = "application/x-www-form-urlencoded" // OSS's default
	JSON BodyType = "application/json"
)

// Limits of the two documents (Callback reference, 2021 edition).
const (
	MaxURLs              = 5
	MaxDocument          = 5 << 10 // bytes of Base64
	maxAdditionalHeaders = 10
)

// Reach says who is going to call the callback URLs.
type Reach int

const (
	// Public is OSS itself: private addresses and names without a dot are refused.
	Public Reach = iota
	// AnyAddress is an emulator, which may call the machine that it runs on.
	AnyAddress
)

// A Parameter is the callback parameter: the JSON document that the x-oss-callback
// header, or the callback query parameter or form field, carries in Base64.
type Parameter struct {
	URLs     []string // callbackUrl: 1 to 5, tried in order until the first success; a missing scheme means http
	Host     string   // callbackHost: the Host header of the callback; "" means the URL's own
	SNI      bool     // callbackSNI: send the server name in the TLS handshake; HTTPS receivers nearly always need it
	Body     string   // callbackBody: the template, see Expand
	BodyType BodyType // callbackBodyType: "" means Form

	// SignatureVersion is "" or "1.0". OSS has an undocumented beta "2.0", which
	// nothing outside OSS can verify, so it is refused.
	SignatureVersion string

	// AdditionalHeaders are sent with the callback: at most 10, unsigned under
	// signature version 1.0. Names are lower-case letters, digits and hyphens.
	AdditionalHeaders map[string]string
}

type parameterDocument struct {
	URL               string            `json:"callbackUrl"`
	Host              string            `json:"callbackHost,omitempty"`
	Body              string            `json:"callbackBody"`
	BodyType          BodyType          `json:"callbackBodyType,omitempty"`
	SNI               bool              `json:"callbackSNI,omitempty"`
	SignatureVersion  string            `json:"signatureVersion,omitempty"`
	AdditionalHeaders map[string]string `json:"additionalHeaders,omitempty"`
}

// JSON returns the document, unchecked.
func (p Parameter) JSON() []byte {
	return marshal(parameterDocument{
		URL:               strings.Join(p.URLs, ";"),
		Host:              p.Host,
		Body:              p.Body,
		BodyType:          p.BodyType,
		SNI:               p.SNI,
		SignatureVersion:  p.SignatureVersion,
		AdditionalHeaders: p.AdditionalHeaders,
	})
}

// Encode checks p and returns the value of the x-oss-callback header. The error
// joins one [FieldError] for each mistake.
func (p Parameter) Encode(reach Reach) (string, error) {
	if err := p.Check(reach); err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(p.JSON()), nil
}

// DecodeParameter reads the value of an x-oss-callback header and checks it as
// [Parameter.Check] does. As with OSS, fields that it does not know are ignored.
func DecodeParameter(encoded string, reach Reach) (Parameter, error) {
	doc, err := decodeDocument("callback", encoded)
	if err != nil {
		return Parameter{}, err
	}
	var d parameterDocument
	if err := json.Unmarshal(doc, &d); err != nil {
		return Parameter{}, notJSON("callback", err)
	}
	p := Parameter{
		Host: d.Host, SNI: d.SNI, Body: d.Body, BodyType: d.BodyType,
		SignatureVersion: d.SignatureVersion, AdditionalHeaders: d.AdditionalHeaders,
	}
	if d.URL != "" {
		p.URLs = strings.Split(d.URL, ";")
	}
	if err := p.Check(reach); err != nil {
		return Parameter{}, err
	}
	return p, nil
}

// Check applies OSS's rules and returns all mistakes, joined.
func (p Parameter) Check(reach Reach) error {
	var errs []error
	errs = append(errs, p.checkURLs(reach)...)
	errs = append(errs, p.checkHost(), p.checkBody(), p.checkSignatureVersion())
	errs = append(errs, p.checkAdditionalHeaders()...)
	if n := base64.StdEncoding.EncodedLen(len(p.JSON())); n > MaxDocument {
		errs = append(errs, tooLarge("callback", n))
	}
	return errors.Join(errs...)
}

func (p Parameter) checkURLs(reach Reach) []error {
	if len(p.URLs) == 0 {
		return []error{&FieldError{"callbackUrl", "is empty", "give the URL that OSS shall call", ErrNoURL}}
	}
	if len(p.URLs) > MaxURLs {
		return []error{&FieldError{"callbackUrl", fmt.Sprintf("has %d URLs", len(p.URLs)),
			"OSS tries at most 5: leave some out", ErrURLCount}}
	}
	var errs []error
	for _, raw := range p.URLs {
		errs = append(errs, checkURL(raw, reach))
	}
	return errs
}

func checkURL(raw string, reach Reach) error {
	wrong := func(rule error, mend, format string, args ...any) error {
		return &FieldError{"callbackUrl", strconv.Quote(raw) + " " + fmt.Sprintf(format, args...), mend, rule}
	}
	for _, c := range raw {
		if c <= ' ' || c >= 0x7f {
			return wrong(ErrNotASCII, "percent-encode it, in the path and in the query", "holds the character %q", c)
		}
	}
	if strings.Contains(raw, ";") {
		return wrong(ErrURL, "give each URL on its own, or write %3B", "holds a semicolon, which separates URLs")
	}
	withScheme := raw
	if !strings.Contains(raw, "://") {
		withScheme = "http://" + raw
	}
	if err := checkPort(withScheme); err != nil {
		return wrong(ErrPort, "write host:8080, say", "has a port that is not a number from 1 to 65535")
	}
	u, err := url.Parse(withScheme)
	switch {
	case err != nil:
		return wrong(ErrURL, "write it as https://host/path", "cannot be parsed")
	case u.Scheme != "http" && u.Scheme != "https":
		return wrong(ErrURL, "use http or https", "has the scheme %s", u.Scheme)
	case u.Hostname() == "":
		return wrong(ErrURL, "write it as https://host/path", "has no host")
	case u.User != nil:
		return wrong(ErrURL, "leave them out: a callback is authenticated by its signature", "holds a user name or password")
	case u.Fragment != "" || strings.Contains(raw, "#"):
		return wrong(ErrURL, "leave the part after # out", "has a fragment, which is never sent")
	}
	if addr, err := netip.ParseAddr(u.Hostname()); err == nil && addr.Is6() {
		return wrong(ErrIPv6, "use an IPv4 address or a name with an A record", "is an IPv6 address, which OSS does not call")
	}
	if reach == Public && PrivateHost(u.Hostname()) {
		return wrong(ErrPrivateAddress, "use an address that is reachable from the Internet",
			"is private: OSS cannot reach %s", u.Hostname())
	}
	return nil
}

// checkPort looks at the port before url.Parse does, whose error does not tell a bad
// port from other mistakes.
func checkPort(raw string) error {
	_, rest, _ := strings.Cut(raw, "://")
	authority := rest
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority = rest[:i]
	}
	authority = authority[strings.LastIndexByte(authority, '@')+1:]
	i := strings.LastIndexByte(authority, ':')
	if i < 0 || strings.HasSuffix(authority, "]") {
		return nil
	}
	if port, err := strconv.ParseUint(authority[i+1:], 10, 16); err != nil || port == 0 {
		return ErrPort
	}
	return nil
}

func (p Parameter) checkHost() error {
	if p.Host == "" {
		return nil
	}
	// A Host that holds a line break or a space would let whoever sets it write
	// further header lines into the callback.
	for _, c := range p.Host {
		if c <= ' ' || c >= 0x7f || strings.ContainsRune("/?#@\\\"<>", c) {
			return &FieldError{"callbackHost", fmt.Sprintf("%q holds the character %q", p.Host, c),
				"give a host name, with a port if need be", ErrHost}
		}
	}
	return nil
}

func (p Parameter) checkBody() error {
	var errs []error
	switch p.BodyType {
	case "", Form, JSON:
	default:
		errs = append(errs, &FieldError{"callbackBodyType", fmt.Sprintf("is %q", string(p.BodyType)),
			fmt.Sprintf("use %s or %s", Form, JSON), ErrBodyType})
	}
	if p.Body == "" {
		errs = append(errs, &FieldError{"callbackBody", "is empty", "give a template such as bucket=${bucket}&object=${object}", ErrEmptyBody})
	} else if _, err := parseTemplate(p.Body); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (p Parameter) checkSignatureVersion() error {
	if p.SignatureVersion == "" || p.SignatureVersion == "1.0" {
		return nil
	}
	return &FieldError{"signatureVersion", fmt.Sprintf("is %q", p.SignatureVersion),
		`leave it out or use "1.0": no other version is documented`, ErrSignatureVersion}
}

// reservedHeaders may not be set through additionalHeaders (OSS error code 0007-00000026).
var reservedHeaders = []string{
	"content-type", "content-length", "host", "authorization", "user-agent",
	"content-md5", "expect", "upgrade", "keep-alive",
}

func (p Parameter) checkAdditionalHeaders() []error {
	var errs []error
	wrong := func(name, problem, mend string) {
		errs = append(errs, &FieldError{"additionalHeaders", fmt.Sprintf("%q %s", name, problem), mend, ErrAdditionalHeader})
	}
	if n := len(p.AdditionalHeaders); n > maxAdditionalHeaders {
		errs = append(errs, &FieldError{"additionalHeaders", fmt.Sprintf("holds %d headers", n), "OSS allows 10", ErrAdditionalHeader})
	}
	for _, name := range slices.Sorted(maps.Keys(p.AdditionalHeaders)) {
		notAllowed := func(c rune) bool { return !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-') }
		switch {
		case name == "" || strings.ContainsFunc(name, notAllowed):
			wrong(name, "is not a name that OSS allows", "use lower-case letters, digits and hyphens")
		case strings.HasPrefix(name, "x-oss-"), slices.Contains(reservedHeaders, name):
			wrong(name, "is set by OSS itself", "choose another name")
		case strings.ContainsFunc(p.AdditionalHeaders[name], func(c rune) bool { return c < ' ' || c >= 0x7f }):
			// A line break here would become further header lines.
			wrong(name, "has a value with a control or non-ASCII character", "percent-encode it")
		}
	}
	return errs
}

func tooLarge(field string, n int) error {
	return &FieldError{field, fmt.Sprintf("takes %d bytes in Base64", n),
		"OSS allows 5120: shorten the template, the URLs or the variables", ErrTooLarge}
}

func notJSON(field string, err error) error {
	problem := "is not the JSON that OSS expects"
	if typeErr, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && typeErr.Field != "" {
		problem = fmt.Sprintf("holds a %s in %s", typeErr.Value, typeErr.Field)
	}
	return &FieldError{field, problem, "see the fields and their types in the Callback reference", ErrNotJSON}
}

// decodeDocument undoes the Base64 of a document and makes sure that it is one JSON
// object in which no key stands twice.
func decodeDocument(field, encoded string) ([]byte, error) {
	if len(encoded) > MaxDocument {
		return nil, tooLarge(field, len(encoded))
	}
	// encoding/base64 skips line breaks; a header value cannot hold any.
	doc, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || strings.ContainsAny(encoded, "\r\n") {
		return nil, &FieldError{field, "is not standard Base64", "encode the JSON with the alphabet A-Z a-z 0-9 + / and padding", ErrNotBase64}
	}
	if _, err := decodeObject(doc); err != nil {
		return nil, &FieldError{field, "is not one JSON object: " + err.Error(), "encode a JSON object in UTF-8", ErrNotJSON}
	}
	return doc, nil
}

// marshal writes v as compact JSON with &, < and > as they are: a template is full
// of ampersands, and OSS counts bytes.
func marshal(v any) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic("callbackspec: strings and maps of strings always marshal: " + err.Error())
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
}
