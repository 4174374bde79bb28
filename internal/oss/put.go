package oss

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"

	"upcall/internal/callbackspec"
	"upcall/internal/fault"
	"upcall/internal/ossrule"
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

// A Callback is the pair of documents that make OSS call back. The zero value is none.
type Callback struct {
	Parameter callbackspec.Document // x-oss-callback
	Vars      callbackspec.Document // x-oss-callback-var; none if there are no variables
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
	return fault.Join(u.Object.Check(), checkExpires(u.Expires), u.checkContent(), u.Callback.check())
}

// checkExpires is needed before signing: the SDK looks at the upper limit only, and
// only once it has signed.
func checkExpires(d time.Duration) error {
	switch {
	case d%time.Second != 0:
		return fault.New(ErrExpires, "expires", "give whole seconds", "%s is no whole number of seconds", d)
	case d < ossrule.MinExpiry, d > ossrule.MaxExpiry:
		return fault.New(ErrExpires, "expires", "OSS allows 1s to 7d", "%s is out of range", d)
	}
	return nil
}

func (u Put) checkContent() error {
	var faults fault.List
	if n := u.ContentLength; n != nil && (*n < 0 || *n > ossrule.MaxPut) {
		faults.AddNew(ErrContentLength, "content-length", fmt.Sprintf("one PUT takes 0 to %d bytes", int64(ossrule.MaxPut)), "%d is out of range", *n)
	}
	if u.ContentMD5 != "" {
		sum, err := base64.StdEncoding.Strict().DecodeString(u.ContentMD5)
		if err != nil || len(sum) != 16 || strings.ContainsAny(u.ContentMD5, "\r\n") {
			faults.AddNew(ErrContentMD5, "content-md5", "give the 24 characters of openssl md5 -binary FILE | base64", "%q is not the Base64 of an MD5", u.ContentMD5)
		}
	}
	return faults.Err()
}

// check leaves the documents themselves to package callbackspec, which alone makes them.
func (c Callback) check() error {
	var faults fault.List
	if c.Parameter.Base64() == "" && c.Vars.Base64() != "" {
		faults.AddNew(ErrCallback, "callback-var", "give a callback too", "has no callback to go with")
	}
	if c.Carriage != InHeaders && c.Carriage != InQuery {
		faults.AddNew(ErrCallback, "carriage", "use InHeaders or InQuery", "%d is neither headers nor query", c.Carriage)
	}
	return faults.Err()
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
	if c.Carriage == InHeaders {
		c.set(headers, "x-oss-callback", "x-oss-callback-var")
	}
}

// parameters are the query parameters of a callback that travels so.
func (c Callback) parameters() map[string]string {
	if c.Carriage != InQuery {
		return nil
	}
	parameters := make(map[string]string, 2)
	c.set(parameters, "callback", "callback-var")
	return parameters
}

// set stores the documents that there are by these names.
func (c Callback) set(in map[string]string, parameter, vars string) {
	if text := c.Parameter.Base64(); text != "" {
		in[parameter] = text
	}
	if text := c.Vars.Base64(); text != "" {
		in[vars] = text
	}
}
