package uploader

import (
	"context"
	"errors"
	"fmt"
	"time"

	"upcall/internal/manifest"
)

// minRemaining is how long the URLs of an interrupted upload must remain valid for it to be
// resumed.
const minRemaining = time.Minute

// Resume reports whether the multipart upload that the task's state remembers can be resumed
// with the task's file; the task needs Renew, but no manifest. If its requests have expired, it
// presigns them again. An upload that cannot be resumed is aborted, if possible, and forgotten.
//
// If there is an error, do not start another upload instead: the file may be stored and
// reported already, and would be reported again.
func (u *Uploader) Resume(ctx context.Context, t Task) (bool, error) {
	old := t.State.Manifest
	if old == nil {
		return false, nil
	}
	s := u.session(t)
	s.sign(old, t.Renew)
	why, err := "", error(nil)
	switch {
	case Fit(manifest.Manifest{Multipart: old}, t.Source.Size()) != nil:
		why, err = "the file has another size now", s.abort(ctx, *old, t.Renew)
	case time.Until(old.ExpiresAt) < minRemaining:
		why, err = s.renewed(ctx, old)
	}
	if why == "" || err != nil {
		return err == nil, err
	}
	t.Watcher.Remark("the interrupted upload cannot be resumed, because " + why + "; starting again")
	t.State.Manifest, t.State.Completing = nil, false
	return false, nil
}

// renewed presigns the requests of the interrupted upload again and says why it cannot be
// resumed nevertheless: "" if it can. Temporary credentials end long before OSS forgets the
// parts.
func (s *session) renewed(ctx context.Context, old *manifest.Multipart) (why string, err error) {
	s.requests.expire()
	_, _, err = s.listParts(ctx, old)
	status, answered := errors.AsType[*StatusError](err)
	switch gone := errors.Is(err, ErrUploadGone); {
	case err == nil, gone && s.state.Completing: // then the object tells whether it was completed
		return "", nil
	case gone:
		return "OSS no longer has it", nil
	case !answered && !errors.Is(err, ErrNetwork):
		return "", err
	case answered && status.expired():
		return "", err // which says what to do
	case !answered, status.retryable():
		return "", fmt.Errorf("%w; run the same command again", err)
	case s.state.Completing && callsBack(old.Complete):
		known := fmt.Sprintf("OSS was asked to complete the upload, and does not say whether it did (%v)", err)
		_, lost := lostCompletion(old, known).fail("so the object is most likely stored; "+
			"%s, and run the same command again only if there is none", lookUp(old.ID))
		return "", errors.Join(lost, s.state.Remove())
	}
	return fmt.Sprintf("OSS does not list its parts, which stay in the bucket (%v)", err), nil
}

// abort aborts the interrupted upload.
func (s *session) abort(ctx context.Context, m manifest.Multipart, renew renewal) error {
	renewed, err := renew(ctx, m)
	if err == nil {
		_, _, err = s.send(ctx, message{what: "abort", request: renewed.Abort, patience: s.cfg.Stall})
	}
	_, answered := errors.AsType[*StatusError](err)
	gone := errors.Is(err, ErrUploadGone)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err == nil, gone && !s.state.Completing: // no part is left
		return nil
	case !s.state.Completing:
		s.watcher.Remark(fmt.Sprintf("its parts stay in the bucket: %v", err))
		return nil
	case !answered:
		return fmt.Errorf("%w; run the same command again", err) // the state is kept, so that the next run finds out
	}
	known := completed
	if !gone {
		known = fmt.Sprintf("OSS was asked to complete the upload, and does not say whether it did (%v)", err)
	}
	s.watcher.Remark(fmt.Sprintf("%s: the file's earlier content is most likely stored, with the upload_id %s", known, m.ID))
	return nil
}
