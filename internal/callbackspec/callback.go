package callbackspec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"upcall/internal/fault"
)

// A Callback is what OSS says about one upload. A field that the template does not
// send, or for which OSS has no value, is the zero value: "" or nil.
type Callback struct {
	Bucket      string
	Object      string // the full object key
	ETag        string // without quotes
	Size        *int64 // bytes of the whole object
	MimeType    string
	ImageHeight *int32 // pixels; nil unless the content is an image
	ImageWidth  *int32
	ImageFormat string  // "jpg", "png", …
	CRC64       *uint64 // CRC-64/XZ, as x-oss-hash-crc64ecma
	ContentMD5  string  // Base64; "" after CompleteMultipartUpload
	VPCID       string  // "" unless the uploader came through a VPC
	ClientIP    netip.Addr
	RequestID   string // of the upload
	Operation   string // "PutObject", "PostObject", "CompleteMultipartUpload"

	// Token is the upload token in its field TokenField.
	Token string

	// Vars is everything else in the body, by its name there, as JSON: text from a
	// form body is a JSON string.
	Vars map[string]json.RawMessage
}

// A systemVariable is a variable that OSS fills in by itself, and its field.
type systemVariable struct {
	name  string
	field func(*Callback) any // its type is that of the variable
}

// systemVariables are in the order of the default template (Callback reference,
// 2025-09-19). They are case sensitive.
var systemVariables = []systemVariable{
	{"bucket", func(c *Callback) any { return &c.Bucket }},
	{"object", func(c *Callback) any { return &c.Object }},
	{"etag", func(c *Callback) any { return &c.ETag }},
	{"size", func(c *Callback) any { return &c.Size }},
	{"mimeType", func(c *Callback) any { return &c.MimeType }},
	{"imageInfo.height", func(c *Callback) any { return &c.ImageHeight }},
	{"imageInfo.width", func(c *Callback) any { return &c.ImageWidth }},
	{"imageInfo.format", func(c *Callback) any { return &c.ImageFormat }},
	{"crc64", func(c *Callback) any { return &c.CRC64 }},
	{"contentMd5", func(c *Callback) any { return &c.ContentMD5 }},
	{"vpcId", func(c *Callback) any { return &c.VPCID }},
	{"clientIp", func(c *Callback) any { return &c.ClientIP }},
	{"reqId", func(c *Callback) any { return &c.RequestID }},
	{"operation", func(c *Callback) any { return &c.Operation }},
}

// SystemVariables are the names of the variables that OSS fills in by itself, in the order
// of the default template.
var SystemVariables = func() (names []string) {
	for _, v := range systemVariables {
		names = append(names, v.name)
	}
	return names
}()

// maxVariables is how many bodies may have: TokenField and SystemVariables.
const maxVariables = 1 + 14

// variableField returns the field of the n-th of SystemVariables, counted from 1, or that of
// TokenField for 0.
func variableField(c *Callback, n int) any {
	if n == 0 {
		return &c.Token
	}
	return systemVariables[n-1].field(c)
}

// numeric variables are not quoted in a JSON body.
func numeric(variable string) bool {
	i := slices.Index(SystemVariables, variable)
	if i < 0 {
		return false
	}
	switch systemVariables[i].field(new(Callback)).(type) {
	case **int32, **int64, **uint64:
		return true
	}
	return false
}

// Fields maps the names in a body to system variables or [TokenField].
type Fields map[string]string

var identity = identityFields()

func identityFields() Fields {
	f := Fields{TokenField: TokenField}
	for _, name := range SystemVariables {
		f[name] = name
	}
	return f
}

// ParseFields reads "filename=object,height=imageInfo.height": names in the template on
// the left, system variables (or upcall_token) on the right. A variable may have several
// names, as the templates of several issuers may. Variables that are not mentioned keep
// their own names.
func ParseFields(s string) (Fields, error) {
	fields := identityFields()
	if strings.TrimSpace(s) == "" {
		return fields, nil
	}
	named := make(map[string]string)
	for entry := range strings.SplitSeq(s, ",") {
		name, variable, ok := strings.Cut(entry, "=")
		name, variable = strings.TrimSpace(name), strings.TrimSpace(variable)
		if inner, braced := strings.CutPrefix(variable, "${"); braced { // as templates have it
			variable = strings.TrimSuffix(inner, "}")
		}
		other, twice := named[name]
		switch {
		case !ok || name == "" || variable == "":
			return nil, fmt.Errorf("%q is not name=variable, as in filename=object", entry)
		case variable != TokenField && !slices.Contains(SystemVariables, variable):
			return nil, fmt.Errorf("%q names no system variable: use one of %s, %s",
				entry, strings.Join(SystemVariables, ", "), TokenField)
		case twice && other == variable:
			return nil, fmt.Errorf("%s=%s is given twice", name, variable)
		case twice:
			return nil, fmt.Errorf("%s holds both %s and %s", name, other, variable)
		}
		named[name] = variable
	}
	for _, variable := range named {
		delete(fields, variable)
	}
	for _, name := range sortedKeys(named) {
		if other, taken := fields[name]; taken {
			return nil, fmt.Errorf("%s holds both %s and %s", name, other, named[name])
		}
		fields[name] = named[name]
	}
	return fields, nil
}

// Parse turns the body of a verified callback into a Callback. It accepts every body that
// OSS can send: both types, templates with other names (which fields maps; nil means OSS's
// own names), and templates whose shape and type do not agree. The error wraps
// [ErrUnsupportedType] or [ErrMalformed]; of the body it has only the names of fields.
func Parse(contentType string, body []byte, fields Fields) (Callback, error) {
	callback, _, err := Read(contentType, body, fields)
	return callback, err
}

// Read is Parse for those who have an upload token to check, too.
func Read(contentType string, body []byte, fields Fields) (Callback, *Content, error) {
	t, err := bodyType(contentType)
	if err != nil {
		return Callback{}, nil, err
	}
	if fields == nil {
		fields = identity
	}
	if t == Form {
		body = bytes.TrimPrefix(body, []byte(byteOrderMark)) // OSS encodes one in a value
	}
	p := &parser{fields: fields, percentEncoded: t == Form, content: Content{bodyType: t, fields: fields}}
	switch object := bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("{")); {
	case object:
		// JSON without a type was sent as JSON: OSS sends one, so a proxy has dropped it.
		p.quoteBare = t == Form && (contentType != "" || !json.Valid(body))
		err = p.object(body)
	case t == JSON:
		err = p.jsonPairs(string(body))
	default:
		err = p.form(string(body))
	}
	if err != nil {
		return Callback{}, nil, err
	}
	return p.callback, &p.content, nil
}

func bodyType(contentType string) (BodyType, error) {
	switch contentType {
	case "", string(Form): // OSS's default type
		return Form, nil
	case string(JSON):
		return JSON, nil
	}
	media, _, err := mime.ParseMediaType(contentType)
	if t := BodyType(media); err == nil && (t == Form || t == JSON) {
		return t, nil
	}
	return "", fmt.Errorf("%w: OSS sends %s or %s", ErrUnsupportedType, Form, JSON)
}

// set stores the text of a variable in its field. Empty text means no value: a form has no
// other way to say so.
func (c *Callback) set(field any, variable, name, text string) error {
	if text == "" {
		return nil
	}
	if literal(variable, text) {
		return malformedTemplate(plainTemplate,
			"field %s holds the text of its variable: the template was percent-encoded before OSS saw it", fault.Name(name))
	}
	var err error
	switch field := field.(type) {
	case *string:
		*field = text
	case **int64:
		*field, err = unsigned[int64](text, 63)
	case **int32:
		*field, err = unsigned[int32](text, 31)
	case **uint64:
		*field, err = unsigned[uint64](text, 64)
	case *netip.Addr:
		*field, err = clientAddr(text)
	}
	if variable == "etag" {
		c.ETag = strings.Trim(text, `"`)
	}
	if err != nil {
		return malformedTemplate(useVariable(variable), "field %s does not hold a valid %s", fault.Name(name), variable)
	}
	return nil
}

// literal reports whether text is "${variable}", which arrives if OSS did not see the
// braces. An object key may contain other variables' names.
func literal(variable, text string) bool {
	if variable == TokenField {
		variable = TokenVar
	}
	return strings.HasPrefix(text, "${") && text == "${"+variable+"}"
}

// clientAddr reads an address; a zone means nothing outside the host that sees it.
func clientAddr(text string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(text)
	if err == nil && addr.Zone() != "" {
		err = errors.New("zone in an address")
	}
	return addr.Unmap(), err
}

// unsigned reads decimal digits that fit the given number of bits.
func unsigned[T int32 | int64 | uint64](text string, bits int) (*T, error) {
	n, err := strconv.ParseUint(text, 10, bits)
	if err != nil {
		return nil, err
	}
	v := T(n)
	return &v, nil
}
