package main

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"upcall/internal/callbackspec"
	"upcall/internal/fault"
	"upcall/internal/issue"
	"upcall/internal/oss"
	"upcall/internal/ossrule"
	"upcall/internal/policy"
)

// objectFlags say what is uploaded.
type objectFlags struct {
	Bucket string `placeholder:"NAME" setting:"UPCALL_BUCKET" help:"The bucket. Required."`
	Key    string `placeholder:"KEY" setting:"UPCALL_KEY" help:"The object key. Required."`

	Expires      string   `default:"1h" placeholder:"1h" setting:"UPCALL_EXPIRES" help:"How long the URL stays valid: 1s to 7d."`
	ContentType  string   `placeholder:"TYPE" setting:"UPCALL_CONTENT_TYPE" help:"${content_type}"`
	StorageClass string   `placeholder:"CLASS" setting:"UPCALL_STORAGE_CLASS" help:"${storage_class}"`
	ACL          string   `name:"acl" placeholder:"ACL" setting:"UPCALL_ACL" help:"default, private, public-read or public-read-write."`
	Meta         []string `sep:"none" placeholder:"NAME=VALUE" setting:"UPCALL_META" help:"User metadata. Repeatable."`
	Tag          []string `sep:"none" placeholder:"KEY=VALUE" setting:"UPCALL_TAG" help:"An object tag. Repeatable."`
	Header       []string `sep:"none" placeholder:"NAME=VALUE" setting:"UPCALL_HEADER" help:"${header}"`

	ForbidOverwrite bool `setting:"UPCALL_FORBID_OVERWRITE" help:"Let the upload fail if the object exists."`
}

// object returns the object and how long its URL is valid. The error is about flags that
// cannot be read; the object holds the others, for its own checks.
func (f *objectFlags) object() (oss.Object, time.Duration, error) {
	meta, metaErr := parsePairs("--meta", f.Meta)
	tags, tagErr := parsePairs("--tag", f.Tag)
	headers, headerErr := parsePairs("--header", f.Header)
	expires, expiresErr := policy.ParseDuration(f.Expires)
	if expiresErr != nil {
		expires = ossrule.MinExpiry // so that only one mistake is reported
	}
	return oss.Object{
		Bucket: f.Bucket, Key: f.Key, ContentType: f.ContentType, StorageClass: f.StorageClass, ACL: f.ACL,
		Meta: meta, Tags: tags, Headers: headers, ForbidOverwrite: f.ForbidOverwrite,
	}, expires, fault.Join(fault.In("--expires", expiresErr), metaErr, tagErr, headerErr)
}

// callbackFlags say what OSS sends after the upload, and where to.
type callbackFlags struct {
	CallbackURL      []string `name:"callback-url" sep:"none" placeholder:"URL" setting:"UPCALL_CALLBACK_URL" help:"${callback_url}"`
	CallbackHost     string   `placeholder:"HOST" setting:"UPCALL_CALLBACK_HOST" help:"${callback_host}"`
	CallbackSNI      *bool    `name:"callback-sni" negatable:"" setting:"UPCALL_CALLBACK_SNI" help:"${callback_sni}"`
	CallbackBodyType string   `default:"form" placeholder:"form" setting:"UPCALL_CALLBACK_BODY_TYPE" help:"${callback_body_type}"`
	Var              []string `sep:"none" placeholder:"NAME=VALUE" setting:"UPCALL_VAR" help:"${var}"`
	Carry            string   `default:"header" placeholder:"header" setting:"UPCALL_CARRY" help:"${carry}"`

	CallbackBody string `placeholder:"TEMPLATE" setting:"UPCALL_CALLBACK_BODY" help:"A template with $${bucket}, $${x:name}… ${adds_token}"`
}

// callback returns nil without a URL. The error is about flags that cannot be read or have
// no effect; the callback holds the others, for its own checks.
func (f *callbackFlags) callback() (*issue.CallbackSpec, error) {
	vars, varErr := parsePairs("--var", withoutPrefix(f.Var))
	bodyType, known := callbackspec.ParseBodyType(f.CallbackBodyType)
	var typeErr error
	if !known { // then it is not checked whether type and template fit
		typeErr = oneOf("--callback-body-type", f.CallbackBodyType, "form", "json")
		if bodyType = callbackspec.Form; strings.HasPrefix(strings.TrimSpace(f.CallbackBody), "{") {
			bodyType = callbackspec.JSON
		}
	}
	unread := fault.Join(varErr, typeErr, oneOf("--carry", f.Carry, "header", "query"))
	if len(f.CallbackURL) == 0 {
		return nil, fault.Join(unread, f.checkNoCallback())
	}
	c := &issue.CallbackSpec{
		URLs: f.CallbackURL, Host: f.CallbackHost, SNI: f.CallbackSNI, Body: f.CallbackBody, Vars: vars,
		BodyType: bodyType, InQuery: f.Carry == "query",
	}
	return c, unread
}

// withoutPrefix takes x: from the names of variables, which OSS's documentation writes.
func withoutPrefix(entries []string) []string {
	bare := make([]string, len(entries))
	for i, entry := range entries {
		bare[i] = strings.TrimPrefix(entry, callbackspec.VarPrefix)
	}
	return bare
}

// checkNoCallback rejects settings of a callback that would never be sent.
func (f *callbackFlags) checkNoCallback() error {
	var faults fault.List
	for _, flag := range []struct {
		name string
		set  bool
	}{
		{"--callback-host", f.CallbackHost != ""},
		{"--callback-sni", f.CallbackSNI != nil},
		{"--callback-body", f.CallbackBody != ""},
		{"--var", len(f.Var) > 0},
	} {
		if flag.set {
			faults.AddAt(flag.name, "has no effect without a callback; give --callback-url, or leave it out")
		}
	}
	return faults.Err()
}

// parseBytes reads a number of bytes. It is nil if the flag is not given.
func parseBytes(flag, s string) (*int64, error) {
	if s == "" {
		return nil, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return nil, fault.At(flag, "%q is not a number of bytes; write 1048576, say", s)
	}
	return &n, nil
}

// parsePairs reads name=value entries. The value may hold further = signs.
func parsePairs(flag string, entries []string) (map[string]string, error) {
	pairs := make(map[string]string, len(entries))
	var faults fault.List
	for _, entry := range entries {
		name, value, ok := strings.Cut(entry, "=")
		_, twice := pairs[name]
		switch {
		case !ok || name == "":
			faults.AddAt(flag, "%q is not name=value", entry)
		case twice:
			faults.AddAt(flag, "%q is given twice; leave one out", name)
		default:
			pairs[name] = value
		}
	}
	return pairs, faults.Err()
}

func oneOf(flag, value string, choices ...string) error {
	if slices.Contains(choices, value) {
		return nil
	}
	return fault.At(flag, "%q is unknown; use %s", value, strings.Join(choices, " or "))
}
