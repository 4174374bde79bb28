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

// saying returns a copy with another message and EC number.
func (e *apiError) saying(message, ec string) *apiError {
	c := *e
	c.message, c.ec = message, ec
	return &c
}

// The errors with OSS's words. EC numbers are those of the public EC pages and of the
// official SDK's fixtures (2026-05).
var (
	errAccessDenied       = &apiError{status: 403, code: "AccessDenied", message: "You have no right to access this object because of bucket acl.", ec: "0003-00000001"}
	errExpired            = &apiError{status: 403, code: "AccessDenied", message: "Request has expired.", ec: "0002-00000236"}
	errNotYetValid        = &apiError{status: 403, code: "AccessDenied", message: "Request is not yet valid.", ec: "0002-00000235"}
	errNoDate             = &apiError{status: 403, code: "AccessDenied", message: "OSS authentication requires a valid Date."}
	errSkewed             = &apiError{status: 403, code: "RequestTimeTooSkewed", message: "The difference between the request time and the current time is too large."}
	errSignature          = &apiError{status: 403, code: "SignatureDoesNotMatch", message: "The request signature we calculated does not match the signature you provided. Check your key and signing method.", ec: "0002-00000040"}
	errAccessKeyID        = &apiError{status: 403, code: "InvalidAccessKeyId", message: "The OSS Access Key Id you provided does not exist in our records.", ec: "0002-00000902"}
	errSecurityToken      = &apiError{status: 403, code: "InvalidSecurityToken", message: "The security token you provided is invalid."}
	errInvalidArgument    = &apiError{status: 400, code: "InvalidArgument", message: "Invalid Argument."}
	errInvalidObjectName  = &apiError{status: 400, code: "InvalidObjectName", message: "The specified object is not valid."}
	errInvalidDigest      = &apiError{status: 400, code: "InvalidDigest", message: "The Content-MD5 you specified was invalid."}
	errEntityTooLarge     = &apiError{status: 400, code: "EntityTooLarge", message: "Your proposed upload exceeds the maximum allowed size."}
	errEntityTooSmall     = &apiError{status: 400, code: "EntityTooSmall", message: "Your proposed upload is smaller than the minimum allowed size."}
	errIncompleteBody     = &apiError{status: 400, code: "IncompleteBody", message: "You did not provide the number of bytes specified by the Content-Length HTTP header."}
	errMalformedXML       = &apiError{status: 400, code: "MalformedXML", message: "The XML you provided was not well-formed or did not validate against our published schema.", ec: "0016-00000608"}
	errInvalidPart        = &apiError{status: 400, code: "InvalidPart", message: "One or more of the specified parts could not be found or the specified entity tag might not have matched the part's entity tag."}
	errInvalidPartOrder   = &apiError{status: 400, code: "InvalidPartOrder", message: "The list of parts was not in ascending order. The parts list must be specified in order by part number."}
	errNoSuchBucket       = &apiError{status: 404, code: "NoSuchBucket", message: "The specified bucket does not exist.", ec: "0015-00000101"}
	errNoSuchKey          = &apiError{status: 404, code: "NoSuchKey", message: "The specified key does not exist.", ec: "0026-00000001"}
	errNoSuchUpload       = &apiError{status: 404, code: "NoSuchUpload", message: "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed."}
	errFileAlreadyExists  = &apiError{status: 409, code: "FileAlreadyExists", message: "The object you specified already exists and can not be overwritten."}
	errMethodNotAllowed   = &apiError{status: 405, code: "MethodNotAllowed", message: "The specified method is not allowed against this resource."}
	errNotImplemented     = &apiError{status: 501, code: "NotImplemented", message: "A header or parameter you provided implies functionality that is not implemented."}
	errPrecondition       = &apiError{status: 412, code: "PreconditionFailed", message: "At least one of the pre-conditions you specified did not hold."}
	errNotModified        = &apiError{status: 304, code: "NotModified", message: "Not Modified."}
	errInvalidRange       = &apiError{status: 416, code: "InvalidRange", message: "The requested range cannot be satisfied."}
	errMalformedPost      = &apiError{status: 400, code: "MalformedPOSTRequest", message: "The body of your POST request is not well-formed multipart/form-data."}
	errPolicyDocument     = &apiError{status: 400, code: "InvalidPolicyDocument", message: "Invalid Policy."}
	errCORSForbidden      = &apiError{status: 403, code: "AccessForbidden", message: "CORSResponse: This CORS request is not allowed. This is usually because the evalution of Origin, request method / Access-Control-Request-Method or Access-Control-Requet-Headers are not whitelisted by the resource's CORS spec."}
	errInternal           = &apiError{status: 500, code: "InternalError", message: "We encountered an internal error. Please try again."}
	errCallbackFailed     = &apiError{status: 203, code: "CallbackFailed"}
	errAmbiguousSignature = errInvalidArgument.saying("The signature is both in the Authorization header and in the query; use one of them.", "")
)

// badArgument is InvalidArgument about one named argument.
func badArgument(name, value, message, ec string) *apiError {
	return errInvalidArgument.saying(message, ec).with("ArgumentName", name, "ArgumentValue", value)
}

// asAPIError finds the answer for an error: what is not an apiError is the emulator's
// own trouble and shows no detail.
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
		_ = xml.EscapeText(&b, []byte(value))
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
	return []byte(b.String())
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
	return c.write(status, "application/xml", append([]byte(xmlHeader), body...))
}
