package oss

import (
	"upcall/internal/callbackspec"
	"upcall/internal/fault"
)

// CallbackHeaders are the pair of documents that make OSS call back. The zero value is
// none.
type CallbackHeaders struct {
	Callback    callbackspec.Document // x-oss-callback
	CallbackVar callbackspec.Document // x-oss-callback-var; none if there are no variables

	// InQuery puts both into the URL, for uploaders that cannot set headers. By default
	// they are signed headers, which the uploader sends. OSS takes them in one place or
	// the other, not in both at once (EC 0007-00000027).
	InQuery bool
}

// check leaves the documents themselves to package callbackspec, which alone makes them.
func (c CallbackHeaders) check() error {
	if c.Callback.Base64() == "" && c.CallbackVar.Base64() != "" {
		return fault.New(ErrCallback, "callback-var", "give a callback too", "has no callback to go with")
	}
	return nil
}

// addTo adds the headers of a callback that travels so.
func (c CallbackHeaders) addTo(headers map[string]string) {
	if !c.InQuery {
		c.set(headers, "x-oss-callback", "x-oss-callback-var")
	}
}

// parameters are the query parameters of a callback that travels so.
func (c CallbackHeaders) parameters() map[string]string {
	if !c.InQuery {
		return nil
	}
	parameters := make(map[string]string, 2)
	c.set(parameters, "callback", "callback-var")
	return parameters
}

// set stores the documents that there are by these names.
func (c CallbackHeaders) set(in map[string]string, callback, callbackVar string) {
	if text := c.Callback.Base64(); text != "" {
		in[callback] = text
	}
	if text := c.CallbackVar.Base64(); text != "" {
		in[callbackVar] = text
	}
}
