package issue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"upcall/internal/callbackspec"
	"upcall/internal/fault"
	"upcall/internal/manifest"
	"upcall/internal/oss"
)

// abortTimeout limits how long aborting an upload may take.
const abortTimeout = 15 * time.Second

// renewedFor is how long renewed requests are valid.
const renewedFor = time.Hour

// A MultipartRequest says what is uploaded in parts, and what OSS reports then.
type MultipartRequest struct {
	Object   oss.Object
	Expires  time.Duration // of every URL; 1 s to 7 days
	Size     *int64        // exact size in bytes; nil leaves it open
	PartSize int64         // of each part but the last, in bytes; 0 means one that suits
	Parts    int           // how many there may be; 0 if Size is given
	Callback *CallbackSpec // sent when the upload is completed; nil is none
	APIKeyID string        // the key that requested it, for the ledger; "" is the command line
}

func (r MultipartRequest) plan(callback oss.CallbackHeaders) oss.MultipartPlan {
	return oss.MultipartPlan{Object: r.Object, Expires: r.Expires, Size: r.Size, PartSize: r.PartSize, Parts: r.Parts, Callback: callback}
}

// Check returns all mistakes in r, joined, without a request to OSS. withToken says that a
// token will be added.
func (r MultipartRequest) Check(hosts callbackspec.Hosts, withToken bool) error {
	return fault.Join(r.plan(oss.CallbackHeaders{}).Check(), r.Callback.check(hosts, withToken))
}

// IssueMultipart initiates a multipart upload at OSS, presigns all its requests, enters it
// in the ledger, and says why it expires when it does. If it fails after the first step, it
// aborts the upload: nobody else knows about it, and OSS bills for the parts of open uploads. The
// error joins all mistakes in r, each a [fault.Fault], in which case nothing was initiated;
// or it is about OSS, the network or the ledger. If it is the ledger's, the upload has only
// its ID, for the log.
func (i *Issuer) IssueMultipart(ctx context.Context, r MultipartRequest) (manifest.Multipart, oss.ExpiryCause, error) {
	if err := r.Check(i.hosts, i.cfg.Tokens != nil); err != nil {
		return manifest.Multipart{}, 0, err
	}
	row, callback, err := i.prepare(r.Object, r.Expires, r.Size, r.Callback, r.APIKeyID)
	if err != nil {
		return manifest.Multipart{}, 0, err
	}
	ref, err := i.cfg.OSS.Initiate(ctx, r.Object)
	if err != nil {
		return manifest.Multipart{}, 0, err
	}
	m, cause, err := i.cfg.OSS.SignMultipart(ctx, r.plan(callback), ref)
	if err != nil {
		return manifest.Multipart{}, 0, errors.Join(err, i.abortInVain(ctx, ref))
	}
	row.ExpiresAt, row.OSSUploadID = m.ExpiresAt, ref.ID
	if err := i.enter(ctx, row); err != nil {
		return manifest.Multipart{ID: row.ID}, 0, errors.Join(err, i.abortInVain(ctx, ref))
	}
	m.ID = row.ID
	return m, cause, nil
}

// abortInVain aborts an upload that nobody else knows about, even if ctx has ended.
func (i *Issuer) abortInVain(ctx context.Context, ref oss.UploadRef) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancel()
	if err := i.cfg.OSS.Abort(ctx, ref); err != nil {
		return fmt.Errorf("the upload %s of %q in %s stays open at OSS: %w", ref.ID, ref.Key, ref.Bucket, err)
	}
	return nil
}

// AbortMultipart ends an upload without storing it, with fresh credentials, even if its
// URLs have expired or ctx has ended.
func (i *Issuer) AbortMultipart(ctx context.Context, m manifest.Multipart) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancel()
	return i.cfg.OSS.Abort(ctx, uploadRef(m))
}

// Renew presigns the requests of an upload again, with fresh credentials, to complete or
// abort it here. Do not hand them out: the ledger does not know when they expire. The error
// wraps [manifest.ErrManifest], or is as of [Issuer.IssueMultipart].
func (i *Issuer) Renew(ctx context.Context, m manifest.Multipart) (manifest.Multipart, error) {
	callback, vars, err := m.CallbackDocuments()
	if err != nil {
		return manifest.Multipart{}, err
	}
	plan := oss.MultipartPlan{
		Object: oss.Object{
			Bucket: m.Bucket, Key: m.Key,
			ACL: m.Complete.Headers["x-oss-object-acl"], ForbidOverwrite: m.Complete.Headers["x-oss-forbid-overwrite"] == "true",
		},
		Expires: renewedFor, Size: m.Size, PartSize: m.PartSize,
		Callback: oss.CallbackHeaders{Callback: callback, CallbackVar: vars},
	}
	if m.Size == nil {
		plan.Parts = len(m.Parts)
	}
	renewed, _, err := i.cfg.OSS.SignMultipart(ctx, plan, uploadRef(m))
	renewed.ID = m.ID
	return renewed, err
}

// RenewMultipart presigns the requests of an upload again, with fresh credentials, for an
// uploader that has these credentials. r is the request that the upload was issued for. The callback
// has a new token, so that it is accepted however long the upload takes. The error is as of
// [Issuer.IssueMultipart].
func (i *Issuer) RenewMultipart(ctx context.Context, r MultipartRequest, m manifest.Multipart) (manifest.Multipart, error) {
	if err := r.Check(i.hosts, i.cfg.Tokens != nil); err != nil {
		return manifest.Multipart{}, err
	}
	if err := i.cfg.OSS.Refresh(ctx); err != nil {
		return manifest.Multipart{}, err
	}
	_, callback, err := i.prepareAs(m.ID, r.Object, r.Expires, r.Size, r.Callback, r.APIKeyID)
	if err != nil {
		return manifest.Multipart{}, err
	}
	renewed, _, err := i.cfg.OSS.SignMultipart(ctx, r.plan(callback), uploadRef(m))
	renewed.ID = m.ID
	return renewed, err
}

func uploadRef(m manifest.Multipart) oss.UploadRef {
	return oss.UploadRef{Bucket: m.Bucket, Key: m.Key, ID: m.OSSUploadID}
}
