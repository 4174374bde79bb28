package issue

import (
	"context"
	"fmt"
	"strings"
	"time"

	"upcall/internal/callbackspec"
	"upcall/internal/eventstore"
	"upcall/internal/fault"
	"upcall/internal/manifest"
	"upcall/internal/oss"
)

// A FormRequest says what may be uploaded by an HTML form, and what OSS reports then.
type FormRequest struct {
	Object           oss.Object    // its key is only the beginning if ByPrefix is set
	ByPrefix         bool          // the uploader chooses the rest of the key, for each file
	Expires          time.Duration // of the form; 1 s to 7 days
	MinSize, MaxSize int64         // bytes
	Callback         *CallbackSpec // nil is a plain upload, which is not reported
	APIKeyID         string        // the key that requested it, for the ledger; "" is the command line
}

// Check returns all mistakes in r, joined, without signing. withToken says that a token
// will be added.
func (r FormRequest) Check(hosts callbackspec.Hosts, withToken bool) error {
	return fault.Join(r.form(callbackspec.Document{}, nil).Check(), r.Callback.check(hosts, withToken), r.checkTemplate())
}

func (r FormRequest) form(callback callbackspec.Document, vars callbackspec.Vars) oss.Form {
	return oss.Form{Object: r.Object, ByPrefix: r.ByPrefix, Expires: r.Expires, MinSize: r.MinSize, MaxSize: r.MaxSize,
		Callback: callback, Vars: vars}
}

// checkTemplate refuses a template of the caller's own whose callbacks would not say which of the keys under a prefix they
// are about.
func (r FormRequest) checkTemplate() error {
	switch {
	case r.Callback == nil:
		return nil
	case r.Callback.InQuery:
		return fault.New(oss.ErrCallback, "carry", "leave it out", "is for presigned URLs: a form has fields for the callback")
	case r.ByPrefix && r.Callback.Body != "" && !strings.Contains(r.Callback.Body, "${object}"):
		return fault.New(callbackspec.ErrTemplate, "callbackBody", "add a field object with ${object}, or give a key instead of a prefix",
			"does not tell the object key, which the uploader chooses")
	}
	return nil
}

// IssueForm makes one form, enters it in the ledger, and says why it expires when it does. The errors are as of
// [Issuer.Issue].
func (i *Issuer) IssueForm(ctx context.Context, r FormRequest) (manifest.Form, oss.ExpiryCause, error) {
	if err := r.Check(i.hosts, i.cfg.Tokens != nil); err != nil {
		return manifest.Form{}, 0, err
	}
	id, err := i.cfg.NewID()
	if err != nil {
		return manifest.Form{}, 0, fmt.Errorf("make upload id: %w", err)
	}
	row := eventstore.IssuedUpload{
		ID: id, IssuedAt: i.cfg.Now(), Bucket: r.Object.Bucket, Object: r.Object.Key, ByPrefix: r.ByPrefix,
		ContentType: r.Object.ContentType, APIKeyID: r.APIKeyID,
	}
	var callback oss.CallbackHeaders
	var vars callbackspec.Vars
	if r.Callback != nil {
		row.Vars = r.Callback.Vars
		if callback, vars, err = i.documents(row, r.Expires, r.Callback); err != nil {
			return manifest.Form{}, 0, err
		}
	}
	signed, err := i.cfg.OSS.Form(ctx, r.form(callback.Callback, vars))
	if err != nil {
		return manifest.Form{}, 0, err
	}
	row.ExpiresAt = signed.ExpiresAt
	if err := i.enter(ctx, row); err != nil {
		return manifest.Form{ID: row.ID}, 0, err
	}
	form := manifest.Form{
		ID: row.ID, Bucket: r.Object.Bucket, Key: r.Object.Key, Method: "POST", URL: signed.URL, ExpiresAt: signed.ExpiresAt,
		MinSize: r.MinSize, MaxSize: r.MaxSize, Fields: signed.Fields,
		Callback: callback.Callback.JSON(), CallbackVar: callback.CallbackVar.JSON(),
	}
	if r.ByPrefix {
		form.Key, form.KeyPrefix = "", r.Object.Key
	}
	return form, signed.ExpiryCause, nil
}

// documents returns the callback of an upload with its token, and the variables by names with x:.
func (i *Issuer) documents(row eventstore.IssuedUpload, expires time.Duration, spec *CallbackSpec) (
	oss.CallbackHeaders, callbackspec.Vars, error) {
	draft, token := spec.draft(i.cfg.Tokens != nil), ""
	if draft.withToken {
		var err error
		if token, err = i.mint(row, expires, draft); err != nil {
			return oss.CallbackHeaders{}, nil, err
		}
	}
	encoded, err := draft.encode(i.hosts, token)
	return encoded, draft.vars, err
}
