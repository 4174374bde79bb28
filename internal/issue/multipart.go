package issue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"upcall/internal/callbackspec"
	"upcall/internal/eventstore"
	"upcall/internal/manifest"
	"upcall/internal/oss"
)

// abortTimeout bounds the abort of an upload that was initiated in vain.
const abortTimeout = 15 * time.Second

// A MultipartRequest says what shall be uploaded in parts, and what shall happen then.
type MultipartRequest struct {
	Object   oss.Object
	Expires  time.Duration // of every URL; 1 s to 7 days
	Size     *int64        // exact size in bytes; nil leaves it open
	PartSize int64         // of each part but the last, in bytes; 0 means one that suits
	Parts    int           // how many there may be; 0 where Size is given
	Callback *Callback     // made when the parts are merged; nil is none
	APIKeyID string        // who asked for it, for the ledger; "" is the command line
}

func (r MultipartRequest) signing(callback oss.Callback) oss.Multipart {
	return oss.Multipart{Object: r.Object, Expires: r.Expires, Size: r.Size, PartSize: r.PartSize, Parts: r.Parts, Callback: callback}
}

// Check returns all mistakes in r, joined, without asking OSS for anything. withToken
// says that a token will be added.
func (r MultipartRequest) Check(reach callbackspec.Reach, withToken bool) error {
	token := ""
	if withToken {
		token = tokenSample
	}
	_, err := r.Callback.encode(reach, token)
	return errors.Join(r.signing(oss.Callback{}).Check(), err)
}

// IssueMultipart initiates a multipart upload at OSS, presigns all its requests and enters
// it in the ledger. If it fails after the first, it aborts the upload again: nobody gets to
// know of it, so nobody else would, and OSS bills for parts of uploads that stay open. The
// error joins all mistakes in r, each a [fault.Fault], and then nothing was initiated; or it
// is about OSS, the network or the ledger. In the last case the upload has its ID, for the
// log, and nothing else. What comes with the upload is what its ExpiresAt follows from.
func (i *Issuer) IssueMultipart(ctx context.Context, r MultipartRequest) (manifest.Multipart, oss.Bound, error) {
	now := i.cfg.Now()
	if err := r.Check(i.reach, i.cfg.Tokens != nil); err != nil {
		return manifest.Multipart{}, 0, err
	}
	id, err := i.cfg.NewID()
	if err != nil {
		return manifest.Multipart{}, 0, fmt.Errorf("make upload id: %w", err)
	}
	token, err := i.token(id, r.Object, now.Add(r.Expires), r.Callback)
	if err != nil {
		return manifest.Multipart{}, 0, err
	}
	callback, err := r.Callback.encode(i.reach, token)
	if err != nil {
		return manifest.Multipart{}, 0, err
	}
	started, err := i.cfg.Presigner.Initiate(ctx, r.Object)
	if err != nil {
		return manifest.Multipart{}, 0, err
	}
	plan := r.signing(callback)
	signed, err := i.cfg.Presigner.SignMultipart(ctx, plan, started)
	if err != nil {
		return manifest.Multipart{}, 0, errors.Join(err, i.abortInVain(ctx, started))
	}
	err = i.enter(ctx, eventstore.IssuedUpload{
		ID: id, IssuedAt: now, ExpiresAt: signed.ExpiresAt, Bucket: r.Object.Bucket, Object: r.Object.Key,
		ContentType: r.Object.ContentType, Size: r.Size, Vars: r.Callback.vars(), APIKeyID: r.APIKeyID, OSSUploadID: started.ID,
	})
	if err != nil {
		return manifest.Multipart{ID: id}, 0, errors.Join(err, i.abortInVain(ctx, started))
	}
	m := manifest.Multipart{
		ID: id, Bucket: r.Object.Bucket, Key: r.Object.Key, OSSUploadID: started.ID,
		Size: r.Size, PartSize: plan.SizeOfParts(), ExpiresAt: signed.ExpiresAt,
		Complete: signed.Complete.PresignedRequest, Abort: signed.Abort.PresignedRequest, ListParts: signed.ListParts[0].PresignedRequest, Head: &signed.Head.PresignedRequest,
		Callback: callback.Parameter.JSON(), CallbackVar: callback.Vars.JSON(),
	}
	for n, part := range signed.Parts {
		m.Parts = append(m.Parts, manifest.Part{Number: int32(n + 1), Size: plan.SizeOf(n + 1), PresignedRequest: part.PresignedRequest})
	}
	for _, list := range signed.ListParts[1:] {
		m.ListPartsNext = append(m.ListPartsNext, list.PresignedRequest)
	}
	return m, signed.Bound, nil
}

// abortInVain aborts an upload that nobody will get to know of, also where ctx ended.
func (i *Issuer) abortInVain(ctx context.Context, started oss.Started) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancel()
	if err := i.cfg.Presigner.Abort(ctx, started); err != nil {
		return fmt.Errorf("the upload %s of %q in %s stays open at OSS: %w", started.ID, started.Key, started.Bucket, err)
	}
	return nil
}

// AbortMultipart gives an upload up, with fresh credentials, even if its URLs have
// expired or ctx has ended.
func (i *Issuer) AbortMultipart(ctx context.Context, m manifest.Multipart) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancel()
	return i.cfg.Presigner.Abort(ctx, started(m))
}

func started(m manifest.Multipart) oss.Started {
	return oss.Started{Bucket: m.Bucket, Key: m.Key, ID: m.OSSUploadID}
}
