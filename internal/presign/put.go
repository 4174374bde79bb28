package presign

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Limits of OSS: V4 presigned URLs (EC 0002-00000232) and PutObject.
const (
	MinExpires = time.Second
	MaxExpires = 7 * 24 * time.Hour
	MaxPutSize = 5 << 30 // bytes
)

// A Put is one object that is to be uploaded by one request.
type Put struct {
	Object Object

	// Expires is for how long the upload may begin, 1 s to 7 days in whole seconds.
	Expires time.Duration

	// ContentLength is the exact size in bytes, 0 to 5 GiB. OSS refuses any other, as
	// the header is signed. nil leaves the size to the uploader.
	ContentLength *int64

	// ContentMD5 is the Base64 of the content's MD5, or "". OSS refuses other content.
	ContentMD5 string

	Callback Callback
}

// A Callback is the pair of encoded documents that make OSS call back. The zero value
// is none.
type Callback struct {
	Parameter string // x-oss-callback, in Base64
	Vars      string // x-oss-callback-var, in Base64; "" if there are none
	Carriage  Carriage
}

// Carriage is where a callback travels. OSS refuses it in both places at once
// (EC 0007-00000027).
type Carriage int

const (
	// InHeaders is the default: signed headers, which the uploader sends.
	InHeaders Carriage = iota
	// InQuery puts both documents into the URL, for uploaders that cannot set headers.
	InQuery
)

// Check returns all mistakes, joined.
func (u Put) Check() error {
	return errors.Join(u.Object.Check(), checkExpires(u.Expires), u.checkContent(), u.Callback.check())
}

// checkExpires is needed before signing: the SDK looks at the upper limit only, and
// only once it has signed.
func checkExpires(d time.Duration) error {
	switch {
	case d%time.Second != 0:
		return wrong(ErrExpires, "expires", "give whole seconds", "%s is no whole number of seconds", d)
	case d < MinExpires, d > MaxExpires:
		return wrong(ErrExpires, "expires", "OSS allows 1s to 7d", "%s is out of range", d)
	}
	return nil
}

func (u Put) checkContent() error {
	var errs []error
	if n := u.ContentLength; n != nil && (*n < 0 || *n > MaxPutSize) {
		errs = append(errs, wrong(ErrContentLength, "content-length", fmt.Sprintf("one PUT takes 0 to %d bytes", int64(MaxPutSize)), "%d is out of range", *n))
	}
	if u.ContentMD5 != "" {
		sum, err := base64.StdEncoding.Strict().DecodeString(u.ContentMD5)
		if err != nil || len(sum) != 16 || strings.ContainsAny(u.ContentMD5, "\r\n") {
			errs = append(errs, wrong(ErrContentMD5, "content-md5", "give the 24 characters of openssl md5 -binary FILE | base64", "%q is not the Base64 of an MD5", u.ContentMD5))
		}
	}
	return errors.Join(errs...)
}

// check looks at the form only: the documents are package callbackspec's.
func (c Callback) check() error {
	var errs []error
	for _, document := range [...]struct{ field, value string }{{"callback", c.Parameter}, {"callback-var", c.Vars}} {
		if len(document.value)%4 != 0 || !isBase64(document.value) {
			errs = append(errs, wrong(ErrCallback, document.field, "encode the JSON document", "is not standard Base64"))
		}
	}
	if c.Parameter == "" && c.Vars != "" {
		errs = append(errs, wrong(ErrCallback, "callback-var", "give a callback too", "has no callback to go with"))
	}
	if c.Carriage != InHeaders && c.Carriage != InQuery {
		errs = append(errs, wrong(ErrCallback, "carriage", "use InHeaders or InQuery", "%d is neither headers nor query", c.Carriage))
	}
	return errors.Join(errs...)
}

// base64Chars are the characters of standard Base64, by their code.
var base64Chars = func() (table [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=") {
		table[c] = true
	}
	return table
}()

// isBase64 looks at the characters only.
func isBase64(s string) bool {
	for i := range len(s) {
		if !base64Chars[s[i]] {
			return false
		}
	}
	return true
}

// headers returns all that is to be sent and signed. u has been checked.
func (u Put) headers() map[string]string {
	headers := u.Object.headers()
	set := func(name, value string) {
		if value != "" {
			headers[name] = value
		}
	}
	set("content-md5", u.ContentMD5)
	if u.ContentLength != nil {
		set("content-length", strconv.FormatInt(*u.ContentLength, 10))
	}
	u.Callback.addTo(headers)
	return headers
}

// addTo adds the headers of a callback that travels so.
func (c Callback) addTo(headers map[string]string) {
	if c.Carriage != InHeaders || c.Parameter == "" {
		return
	}
	headers["x-oss-callback"] = c.Parameter
	if c.Vars != "" {
		headers["x-oss-callback-var"] = c.Vars
	}
}

// parameters are the query parameters of a callback that travels so.
func (c Callback) parameters() map[string]string {
	if c.Carriage != InQuery || c.Parameter == "" {
		return nil
	}
	parameters := map[string]string{"callback": c.Parameter}
	if c.Vars != "" {
		parameters["callback-var"] = c.Vars
	}
	return parameters
}
