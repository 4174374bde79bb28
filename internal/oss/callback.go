package oss

import (
	sdk "github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"

	"upcall/internal/callbackspec"
	"upcall/internal/fault"
)

// CallbackHeaders are the pair of documents that make OSS call back. The zero value means
// no callback.
type CallbackHeaders struct {
	Callback    callbackspec.Document // x-oss-callback
	CallbackVar callbackspec.Document // x-oss-callback-var; none if there are no variables

	// InQuery puts both into the URL, for uploaders that cannot set headers. By default
	// they are signed headers, which the uploader sends. OSS accepts them in one place or
	// the other, not in both (EC 0007-00000027).
	InQuery bool
}

// check leaves the documents to package callbackspec, which alone makes them.
func (c CallbackHeaders) check() error {
	if c.Callback.Base64() == "" && c.CallbackVar.Base64() != "" {
		return fault.New(ErrCallback, "callback-var", "give a callback too", "has no callback to go with")
	}
	return nil
}

// with returns a request's headers and query parameters with the callback in one of them.
func (c CallbackHeaders) with(headers map[string]string) sdk.RequestCommon {
	common := sdk.RequestCommon{Headers: headers}
	in, prefix := headers, "x-oss-"
	if c.InQuery {
		common.Parameters = make(map[string]string, 2)
		in, prefix = common.Parameters, ""
	}
	if text := c.Callback.Base64(); text != "" {
		in[prefix+"callback"] = text
	}
	if text := c.CallbackVar.Base64(); text != "" {
		in[prefix+"callback-var"] = text
	}
	return common
}
