package uploader

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"upcall/internal/manifest"
	"upcall/internal/ossrule"
)

// A requestOf finds one request of a multipart upload.
type requestOf = func(*manifest.Multipart) manifest.PresignedRequest

// A renewal presigns the requests of an upload again, which requires credentials.
type renewal = func(context.Context, manifest.Multipart) (manifest.Multipart, error)

// requests are those of a multipart upload. With credentials they are presigned again when they
// expire, or when the credentials that signed them do, so that an upload may take longer than
// either.
type requests struct {
	renew  renewal // nil without credentials
	state  *State
	remark func(line string)

	mu      sync.Mutex
	current *manifest.Multipart
	refused *StatusError // why OSS refuses current; nil if it does not
	ended   bool         // current expires too soon
}

// runAgain says what to do where no credentials are valid.
const runAgain = "with valid credentials, run the same command again, which sends only what is missing"

// expire makes the next request presign all of them again.
func (r *requests) expire() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
}

// latest returns requests that have not expired, as far as is known.
func (r *requests) latest(ctx context.Context) (*manifest.Multipart, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.renew == nil || !r.ended && r.refused == nil && time.Now().Before(r.current.ExpiresAt) {
		return r.current, nil
	}
	renewed, err := r.renew(ctx, *r.current)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("sign the rest of the upload: %w; %s", err, runAgain)
	}
	if r.refused != nil && signer(&renewed) == signer(r.current) &&
		(r.refused.Code != "AccessDenied" || !renewed.ExpiresAt.After(r.current.ExpiresAt)) {
		return nil, fmt.Errorf("%w; %s", r.refused, runAgain) // the credentials that have expired are still the only ones
	}
	r.current, r.refused, r.ended = &renewed, nil, false
	r.remark("signed the rest of the upload again, until " + renewed.ExpiresAt.UTC().Format(time.RFC3339))
	if r.state.Manifest != nil {
		r.state.Manifest = &renewed
		if err := r.state.Save(); err != nil {
			return nil, err
		}
	}
	return r.current, nil
}

// expired reports whether err means that used has expired and that others can take its place.
func (r *requests) expired(used *manifest.Multipart, err error) bool {
	status, ok := errors.AsType[*StatusError](err)
	if !ok || r == nil || r.renew == nil || !status.expired() {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if used == r.current {
		r.refused = status
	}
	return true
}

// expired reports whether other credentials, or a newer signature, may help. OSS does not know
// the access key of temporary credentials that have expired.
func (e *StatusError) expired() bool {
	return ossrule.Expired(e.Code, e.Message) || e.Code == "InvalidAccessKeyId" || e.Code == "InvalidSecurityToken"
}

// signer identifies the credentials that signed the requests.
func signer(m *manifest.Multipart) string {
	u, err := url.Parse(m.Complete.URL)
	if err != nil {
		return ""
	}
	id, _, _ := strings.Cut(u.Query().Get("x-oss-credential"), "/")
	return id + "/" + u.Query().Get("x-oss-security-token")
}
