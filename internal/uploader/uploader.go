// Package uploader uploads files to OSS with presigned requests, as a client without
// credentials does: by one PUT, or as a multipart upload in parallel parts that resumes
// after an interruption.
//
// It compares CRC-64 from the file to OSS's answer, retries what may be retried, and never
// takes 203 CallbackFailed for success. A manifest tells it where to send the file; nothing
// is sent before the whole manifest has been checked.
package uploader

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"upcall/internal/fault"
	"upcall/internal/manifest"
)

// Config is how an Uploader works.
type Config struct {
	// Parallel is how many files or parts are sent at once, 1 to 64.
	Parallel int

	// Attempts is how often one request is tried, 1 to 100. Eight attempts take about a
	// minute if nothing answers.
	Attempts int

	// Pause is the mean pause before the second attempt. It doubles with each attempt, up
	// to half a minute. Default half a second.
	Pause time.Duration

	// Signs says that the uploader also signs, with credentials of their own: advice in errors
	// is then about those, and otherwise about the manifest. Default false.
	Signs bool

	// Unlisted says that the uploads have no rows in the ledger, so that a listing cannot find
	// the upload of an object again. Default false.
	Unlisted bool

	// Rate limits how many bytes of files are sent per second, by all requests together; at
	// least MinRate. Default 0, no limit.
	Rate int64

	// Stall is how long a connection may be idle. Default two minutes. OSS gets three
	// times that to complete an upload and call back.
	Stall time.Duration
}

func (c Config) check() error {
	var faults fault.List
	if c.Parallel < 1 || c.Parallel > 64 {
		faults.AddAt("parallel", "%d is out of range; give 1 to 64", c.Parallel)
	}
	if c.Attempts < 1 || c.Attempts > 100 {
		faults.AddAt("attempts", "%d is out of range; give 1 to 100", c.Attempts)
	}
	if c.Rate != 0 && c.Rate < MinRate {
		faults.AddAt("limit-rate", "%d bytes a second is too slow; give at least %d", c.Rate, MinRate)
	}
	if c.Pause < 0 || c.Stall < 0 {
		faults.AddAt("pause, stall", "a duration is negative; leave it out for the default")
	}
	return faults.Err()
}

// An Uploader uploads files. Several goroutines may use it; they share its limits.
type Uploader struct {
	cfg    Config
	client *http.Client
	slots  *semaphore.Weighted // one for each file or part that is being sent
	pace   *rate.Limiter       // nil if there is no limit
}

// New returns an uploader. The error joins all mistakes in cfg.
func New(cfg Config) (*Uploader, error) {
	cfg.Pause, cfg.Stall = cmp.Or(cfg.Pause, 500*time.Millisecond), cmp.Or(cfg.Stall, 2*time.Minute)
	if err := cfg.check(); err != nil {
		return nil, err
	}
	return &Uploader{cfg: cfg, client: newClient(cfg.Parallel), slots: semaphore.NewWeighted(int64(cfg.Parallel)), pace: newPace(cfg.Rate)}, nil
}

// A Watcher is told about the progress of an upload, by several goroutines at once.
type Watcher interface {
	// Sent says that n more bytes of the file are sent; n is negative if they have to be sent
	// again.
	Sent(n int64)
	// Kept says that n bytes of the file were there already.
	Kept(n int64)
	// Remark says in one line what happened, for example that a request is retried.
	Remark(line string)
}

// A Task is one file to upload.
type Task struct {
	Source   *Source
	Manifest manifest.Manifest
	State    *State // of a multipart upload, kept until it is over; nil keeps none

	// Renew presigns the requests of a multipart upload again when they have expired, which
	// requires credentials. Default none.
	Renew func(context.Context, manifest.Multipart) (manifest.Multipart, error)

	Watcher Watcher
}

// A Result is an upload that succeeded: stored, checked and, if it has a callback,
// reported.
type Result struct {
	Answer json.RawMessage // the callback receiver's; nil without a callback
	ETag   string          // of the object, as OSS spells it
	Size   int64           // bytes
	CRC64  uint64          // of the object
	Parts  int             // 0 for a single PUT
	Kept   int             // how many of the parts were there already
}

// Upload uploads one file. It sends nothing if the manifest is bad or does not fit.
//
// The error wraps one of the package's sentinels, is a [StatusError], or is ctx's. The
// parts of a multipart upload stay at OSS, and the same task resumes it, unless OSS says
// that the upload is over.
func (u *Uploader) Upload(ctx context.Context, t Task) (Result, error) {
	if err := t.Manifest.Check(); err != nil {
		return Result{}, err
	}
	pieces, err := divide(t.Manifest, t.Source.Size())
	if err != nil {
		return Result{}, err
	}
	s := u.session(t)
	if t.Manifest.Multipart != nil {
		s.sign(t.Manifest.Multipart, t.Renew)
		return s.multipart(ctx, t.Manifest.Multipart, pieces)
	}
	return s.put(ctx, pieces[0])
}

// A session is the work on one upload.
type session struct {
	*Uploader
	source   *Source // nil if OSS has all parts already
	want     content
	state    *State
	watcher  Watcher
	requests *requests // of a multipart upload
	over     bool      // OSS no longer has the multipart upload
}

// sign sets the requests of the multipart upload.
func (s *session) sign(m *manifest.Multipart, renew renewal) {
	s.requests = &requests{renew: renew, state: s.state, remark: s.watcher.Remark, current: m}
}

func (u *Uploader) session(t Task) *session {
	s := &session{Uploader: u, source: t.Source, state: cmp.Or(t.State, new(State)), watcher: t.Watcher}
	if s.source != nil {
		s.want = content{"the file", s.source.Size(), s.fileCRC}
	}
	return s
}

// put uploads the whole file by one request.
func (s *session) put(ctx context.Context, whole piece) (Result, error) {
	if err := s.slots.Acquire(ctx, 1); err != nil {
		return Result{}, err
	}
	defer s.slots.Release(1)
	a, maybe, err := s.send(ctx, message{what: "upload", request: whole.request, piece: &whole, patience: s.cfg.Stall})
	switch {
	case maybe && taken(err):
		return s.answerLost(ctx, lost{
			what: "upload", known: "an earlier attempt got no answer, and the key is taken now", callsBack: callsBack(whole.request),
		})
	case err != nil:
		return Result{}, err
	}
	said, err := receiverAnswer("upload", whole.request, a)
	if err != nil {
		return Result{}, err
	}
	return Result{Answer: said, ETag: a.header.Get("ETag"), Size: whole.size, CRC64: a.crc}, nil
}

// taken reports whether OSS rejected the request because the object exists.
func taken(err error) bool {
	status, ok := errors.AsType[*StatusError](err)
	return ok && status.Code == "FileAlreadyExists"
}

// receiverAnswer returns the callback receiver's answer, nil without a callback. OSS passes
// on nothing but JSON.
func receiverAnswer(what string, r manifest.PresignedRequest, a answer) (json.RawMessage, error) {
	switch {
	case !callsBack(r):
		return nil, nil
	case !json.Valid(a.body):
		return nil, fmt.Errorf("%s: %w: the file is stored, but the receiver's JSON is missing, so the file may not be recorded; %s",
			what, ErrNotOSS, lookBetween)
	}
	return a.body, nil
}
