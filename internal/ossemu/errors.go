package ossemu

import (
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// An apiError is an error answer in OSS's dialect.
type apiError struct {
	status  int
	code    string
	message string
	ec      string   // OSS's EC number; "" where none is documented
	details []detail // further elements of the XML
}

// A detail is one further element of an error's XML.
type detail struct{ name, value string }

func (e *apiError) Error() string {
	return fmt.Sprintf("%d %s: %s", e.status, e.code, e.message)
}

// with returns a copy that has further elements; pairs are name, value, name, value.
func (e *apiError) with(pairs ...any) *apiError {
	c := *e
	c.details = slices.Clone(e.details)
	for pair := range slices.Chunk(pairs, 2) {
		c.details = append(c.details, detail{fmt.Sprint(pair[0]), fmt.Sprint(pair[1])})
	}
	return &c
}

// numbered returns a copy with another EC number.
func (e *apiError) numbered(ec string) *apiError { return e.saying(e.message, ec) }

// saying returns a copy with another message and EC number.
func (e *apiError) saying(message, ec string) *apiError {
	c := *e
	c.message, c.ec = message, ec
	return &c
}

// badArgument is InvalidArgument about one named argument.
func badArgument(name, value, message, ec string) *apiError {
	return errInvalidArgument.saying(message, ec).with("ArgumentName", name, "ArgumentValue", value)
}

// asAPIError finds the answer for an error. Any other error than an apiError is a fault of
// the emulator, and its answer shows no detail.
func asAPIError(err error) *apiError {
	if e, ok := errors.AsType[*apiError](err); ok {
		return e
	}
	return errInternal
}

// document writes the error's XML as OSS does.
func (e *apiError) document(requestID, host string) []byte {
	var b strings.Builder
	b.WriteString(xmlHeader)
	b.WriteString("<Error>\n")
	element := func(name, value string) {
		b.WriteString("  <" + name + ">")
		// EscapeText replaces characters that XML cannot hold; a Builder never fails.
		_ = xml.EscapeText(&b, []byte(hideControls(value)))
		b.WriteString("</" + name + ">\n")
	}
	element("Code", e.code)
	element("Message", e.message)
	element("RequestId", requestID)
	element("HostId", host)
	for _, d := range e.details {
		element(d.name, d.value)
	}
	if e.ec != "" {
		element("EC", e.ec)
		element("RecommendDoc", "https://api.aliyun.com/troubleshoot?q="+e.ec)
	}
	b.WriteString("</Error>\n")
	return []byte(plainXML(b.String()))
}

const xmlHeader = `<?xml version="1.0" encoding="UTF-8"?>` + "\n"

// writeError sends an error. An answer to HEAD has no body: there OSS puts the XML in
// the x-oss-err header, which the SDKs read.
func (c *call) writeError(err error) {
	e := asAPIError(err)
	doc := e.document(c.id, c.r.Host)
	h := c.w.Header()
	if e.ec != "" {
		h.Set("x-oss-ec", e.ec)
	}
	if e.status == http.StatusNotModified {
		c.w.WriteHeader(e.status)
		return
	}
	if c.r.Method == http.MethodHead {
		h.Set("x-oss-err", base64.StdEncoding.EncodeToString(doc))
		doc = nil
	}
	_ = c.write(e.status, "application/xml", doc)
}

// writeXML sends a result document.
func (c *call) writeXML(status int, v any) error {
	body, err := xml.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("marshal result: %w", err)
	}
	return c.write(status, "application/xml", []byte(xmlHeader+plainXML(string(body))))
}
