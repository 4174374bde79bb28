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

// A renewal presigns the requests of an upload again, which requires credentials.
type renewal = func(context.Context, manifest.Multipart) (manifest.Multipart, error)

// Resume reports whether the multipart upload that the task's state remembers can be resumed
// with the task's file; the task needs no manifest. An upload that cannot be resumed is aborted,
// by a request that renew presigns, and forgotten.
//
// If there is an error, do not start another upload instead: the file may be stored and
// reported already, and would be reported again.
func (u *Uploader) Resume(ctx context.Context, t Task, renew renewal) (bool, error) {
	old := t.State.Manifest
	if old == nil {
		return false, nil
	}
	fits := Fit(manifest.Manifest{Multipart: old}, t.Source.Size()) == nil
	why := "the file has another size now"
	switch {
	case time.Until(old.ExpiresAt) < minRemaining:
		why = "its URLs have expired"
	case fits:
		return true, nil
	}
	if err := u.session(t).abort(ctx, *old, fits, renew); err != nil {
		return false, err
	}
	t.Watcher.Remark("the interrupted upload cannot be resumed, because " + why + "; starting again")
	t.State.Manifest, t.State.Completing = nil, false
	return false, nil
}

// abort aborts the interrupted upload.
func (s *session) abort(ctx context.Context, m manifest.Multipart, fits bool, renew renewal) error {
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
	if fits && callsBack(m.Complete) {
		_, lost := lostCompletion(&m, known).fail("so the object is most likely stored; "+
			"%s, and run the same command again only if there is none", lookUp(m.ID))
		return errors.Join(lost, s.state.Remove())
	}
	s.watcher.Remark(fmt.Sprintf("%s: the file's earlier content is most likely stored, with the upload_id %s", known, m.ID))
	return nil
}
