package oss

import (
	"fmt"
	"maps"
	"mime"
	"net/url"
	"slices"
	"strings"

	"upcall/internal/fault"
	"upcall/internal/ossrule"
)

// An Object is the name of what is uploaded, and what OSS stores with it.
type Object struct {
	Bucket string
	Key    string

	ContentType     string            // "" leaves it out of the signature: then the uploader must send none
	StorageClass    string            // one of ossrule.StorageClasses; "" means the bucket's
	ACL             string            // one of ossrule.ACLs; "" means the bucket's
	Meta            map[string]string // x-oss-meta-*, by the name after the prefix
	Tags            map[string]string // object tags, at most 10
	ForbidOverwrite bool              // the upload fails if the object exists

	// Headers are other headers, by names in any case: any x-oss-* without its own setting,
	// and the standard ones that OSS stores.
	Headers map[string]string
}

// Limits of OSS for an object's tags.
const (
	maxTags     = 10
	maxTagKey   = 128
	maxTagValue = 256
)

// additionalHeaders are signed whenever they are sent. V4 signs headers outside x-oss-*
// only if the request lists them.
var additionalHeaders = append([]string{"content-length"}, ossrule.StoredHeaders...)

// reservedHeaders are part of the signature itself or have their own setting. A
// caller who could set x-oss-date, say, would choose the time that is signed.
var reservedHeaders = map[string]string{
	"authorization":            "leave it out: the URL carries the signature",
	"content-length":           "use content-length",
	"content-md5":              "use content-md5",
	"content-type":             "use content-type",
	"x-oss-additional-headers": "leave it out: it is part of the signature",
	"x-oss-callback":           "use callback-url",
	"x-oss-callback-var":       "use var",
	"x-oss-content-sha256":     "leave it out: it is part of the signature",
	"x-oss-credential":         "leave it out: it is part of the signature",
	"x-oss-date":               "leave it out: it is part of the signature",
	"x-oss-expires":            "use expires",
	"x-oss-forbid-overwrite":   "use forbid-overwrite",
	"x-oss-object-acl":         "use acl",
	"x-oss-security-token":     "set OSS_SESSION_TOKEN",
	"x-oss-signature":          "leave it out: it is part of the signature",
	"x-oss-signature-version":  "leave it out: it is part of the signature",
	"x-oss-storage-class":      "use storage-class",
	"x-oss-tagging":            "use tag",
}

// Check returns all mistakes, joined.
func (o Object) Check() error {
	return fault.Join(ossrule.CheckBucket(o.Bucket), checkKey(o.Key), o.checkContentType(), o.checkChoices(),
		o.checkMeta(), o.checkTags(), o.checkHeaders())
}

func checkKey(key string) error {
	if err := ossrule.CheckKey(key); err != nil {
		return err
	}
	if strings.ContainsRune(key, 0) {
		// OSS would take it, but no database field and no C client can hold it.
		return fault.New(ossrule.ErrKey, "key", "leave it out", "holds a NUL")
	}
	return nil
}

func (o Object) checkContentType() error {
	if o.ContentType == "" {
		return nil
	}
	kind, _, err := mime.ParseMediaType(o.ContentType)
	if err != nil || !strings.Contains(kind, "/") || badValue(o.ContentType) != "" {
		return fault.New(ErrContentType, "content-type", "give one such as image/jpeg", "%q is not a media type", o.ContentType)
	}
	return nil
}

func (o Object) checkChoices() error {
	choice := func(rule error, field, value string, choices []string) error {
		if value == "" || slices.Contains(choices, value) {
			return nil
		}
		return fault.New(rule, field, "use one of "+strings.Join(choices, ", "), "%q is unknown", value)
	}
	return fault.Join(
		choice(ErrStorageClass, "storage-class", o.StorageClass, ossrule.StorageClasses),
		choice(ErrACL, "acl", o.ACL, ossrule.ACLs))
}

func (o Object) checkMeta() error {
	var faults fault.List
	size := 0
	seen := make(map[string]bool)
	for _, name := range slices.Sorted(maps.Keys(o.Meta)) {
		value := o.Meta[name]
		size += len(name) + len(value)
		field, lower := "meta "+fault.Name(name), strings.ToLower(name)
		switch {
		case lower == "":
			faults.AddNew(ErrMeta, "meta", "write name=value", "has an entry without a name")
		case !ossrule.IsName(lower):
			faults.AddNew(ErrMeta, field, "use letters, digits and hyphens", "holds a character that OSS does not take in a name")
		case seen[lower]:
			faults.AddNew(ErrMeta, field, "leave one out", "is given twice: OSS does not tell the cases apart")
		case badValue(value) != "":
			faults.AddNew(ErrMeta, field, fixValue("", value), "has a value that %s", badValue(value))
		}
		seen[lower] = true
	}
	if size > ossrule.MaxMeta {
		faults.AddNew(ErrMeta, "meta", "OSS allows 8192", "takes %d bytes", size)
	}
	return faults.Err()
}

func (o Object) checkTags() error {
	var faults fault.List
	if n := len(o.Tags); n > maxTags {
		faults.AddNew(ErrTag, "tag", "OSS allows 10", "there are %d", n)
	}
	notAllowed := func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune(" +-=._:/", r))
	}
	for _, key := range slices.Sorted(maps.Keys(o.Tags)) {
		value, field := o.Tags[key], "tag "+fault.Name(key)
		switch {
		case key == "":
			faults.AddNew(ErrTag, "tag", "write key=value", "has an entry without a key")
		case len(key) > maxTagKey || len(value) > maxTagValue:
			faults.AddNew(ErrTag, field, fmt.Sprintf("OSS allows %d for a key and %d for a value", maxTagKey, maxTagValue),
				"has %d and %d characters", len(key), len(value))
		case strings.ContainsFunc(key, notAllowed) || strings.ContainsFunc(value, notAllowed):
			faults.AddNew(ErrTag, field, "use letters, digits, space and + - = . _ : /",
				"holds a character that OSS does not take in a tag")
		}
	}
	return faults.Err()
}

func (o Object) checkHeaders() error {
	var faults fault.List
	seen := make(map[string]bool)
	for _, name := range slices.Sorted(maps.Keys(o.Headers)) {
		field, lower := "header "+fault.Name(name), strings.ToLower(name)
		instead, reserved := reservedHeaders[lower]
		bad := func(fix, problem string, args ...any) {
			faults.AddNew(ErrHeader, field, fix, problem, args...)
		}
		switch {
		case name == "":
			faults.AddNew(ErrHeader, "header", "write name=value", "has an entry without a name")
		case !ossrule.IsName(lower):
			bad("use letters, digits and hyphens", "is not a header name that OSS knows")
		case reserved:
			bad(instead, "cannot be set here")
		case strings.HasPrefix(lower, ossrule.MetaPrefix):
			bad("use meta", "is user metadata")
		case !strings.HasPrefix(lower, "x-oss-") && !slices.Contains(ossrule.StoredHeaders, lower):
			bad("use x-oss-* or "+strings.Join(ossrule.StoredHeaders, ", ")+"; your own data goes into meta",
				"is not a header that OSS stores")
		case seen[lower]:
			bad("leave one out", "is given twice: case does not matter")
		case badValue(o.Headers[name]) != "":
			bad(fixValue(lower, o.Headers[name]), "has a value that %s", badValue(o.Headers[name]))
		}
		seen[lower] = true
	}
	return faults.Err()
}

// badValue says what keeps a value from being a header that arrives as it was signed,
// or "".
func badValue(value string) string {
	switch {
	case value == "":
		return "is empty" // the SDK would drop it
	case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r >= 0x7f }):
		// A line break would let the author of the value add headers.
		return "holds a control character or one that is not ASCII"
	case strings.TrimSpace(value) != value:
		return "starts or ends with a space" // HTTP drops it in transit
	}
	return ""
}

// fixValue says what to write for a bad value of a header, or of user metadata if name is "".
func fixValue(name, value string) string {
	switch {
	case value == "":
		return "give one, or leave it out"
	case !strings.ContainsFunc(value, func(r rune) bool { return r >= 0x80 }):
		return "leave out what is not printed, and spaces at the ends"
	case name == "content-disposition":
		// Browsers decode this form (RFC 6266 and RFC 8187) and no other.
		_, file, found := strings.Cut(value, "filename=")
		if !found {
			return "write filename*=UTF-8'' and the percent-encoded name"
		}
		if file, found = strings.CutPrefix(strings.TrimSpace(file), `"`); found {
			file, _, _ = strings.Cut(file, `"`)
		} else {
			file, _, _ = strings.Cut(file, ";")
		}
		return "write filename*=UTF-8''" + ossrule.Escape(strings.TrimSpace(file)) + " in place of filename="
	case name == "":
		return "percent-encode the value"
	}
	return "use ASCII: nobody decodes this header"
}

// headers returns the signed headers. o has been checked.
func (o Object) headers() map[string]string {
	headers := make(map[string]string, len(o.Meta)+len(o.Headers)+4)
	set := func(name, value string) {
		if value != "" {
			headers[name] = value
		}
	}
	set("content-type", o.ContentType)
	set("x-oss-storage-class", o.StorageClass)
	set("x-oss-object-acl", o.ACL)
	if o.ForbidOverwrite {
		set("x-oss-forbid-overwrite", "true")
	}
	set("x-oss-tagging", o.tagging())
	for name, value := range o.Meta {
		set(ossrule.MetaPrefix+strings.ToLower(name), value)
	}
	for name, value := range o.Headers {
		set(strings.ToLower(name), value)
	}
	return headers
}

// tagging returns the value of x-oss-tagging: key=value pairs, URL-encoded.
func (o Object) tagging() string {
	if len(o.Tags) == 0 {
		return ""
	}
	values := make(url.Values, len(o.Tags))
	for key, value := range o.Tags {
		values.Set(key, value)
	}
	return strings.ReplaceAll(values.Encode(), "+", "%20")
}
