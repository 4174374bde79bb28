package intake

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/time/rate"

	"upcall/internal/admission"
	"upcall/internal/callbackspec"
	"upcall/internal/event"
	"upcall/internal/verify"
)

// Anybody can send callbacks that are refused, as fast as they like. So a few of them are
// kept, of each reason some, and what is not kept is counted.
const (
	refusalsPerSecond, refusalsAtOnce              = 20, 100 // of all reasons together
	refusalsOfReasonPerSecond, refusalsOfOneAtOnce = 5, 50
	// refusalQueue is how many wait to be written, each with its body of up to admission.MaxBody.
	refusalQueue = 128
	// refusalsEvery is how often those that wait are written.
	refusalsEvery = time.Second
	// refusalTimeout bounds the writing. While PostgreSQL is away they are dropped.
	refusalTimeout = 2 * time.Second
)

// A RefusalStore keeps refused callbacks: eventstore.Refusals. It is an interface so
// that tests can stop it.
type RefusalStore interface {
	Keep(ctx context.Context, refusals []event.RefusedCallback) error
}

// A refused callback, until there is time to look into it. What it holds of the request
// is not changed after the answer.
type refused struct {
	reason   admission.Reason
	at       time.Time
	uploadID uuid.NullUUID
	request  admission.Request
	signed   verify.Request // of the request
}

// refusals takes refused callbacks off the path of the answers.
type refusals struct {
	store   RefusalStore
	fields  callbackspec.Fields
	metrics *Metrics
	logger  *slog.Logger
	queue   chan *refused

	mu      sync.Mutex // guards what follows
	all     *rate.Limiter
	reasons map[admission.Reason]*rate.Limiter // by reason; those are of our own making, and few
}

func newRefusals(cfg Config) *refusals {
	return &refusals{
		store: cfg.Refusals, fields: cfg.Admission.Fields, metrics: cfg.Metrics, logger: cfg.Logger,
		queue:   make(chan *refused, refusalQueue),
		all:     rate.NewLimiter(refusalsPerSecond, refusalsAtOnce),
		reasons: make(map[admission.Reason]*rate.Limiter),
	}
}

// isKept says whether such refusals go to the table: callbacks that came and were found
// bad. A 503 says nothing of the callback, a wrong path or method is none, and the
// recorder itself keeps what it refuses because the upload was revoked.
func isKept(r *admission.Refusal) bool {
	switch r.Code {
	case admission.Unavailable, admission.NotFound, admission.MethodNotAllowed:
		return false
	}
	return r.Reason != admission.ReasonTokenRevoked
}

// noteRefusal has a refusal kept, unless there are too many. It never waits.
func (s *Server) noteRefusal(seen *logEvent) {
	if s.refusals.store == nil || !isKept(seen.refusal) {
		return
	}
	now := s.cfg.Now()
	if !s.refusals.allow(seen.refusal.Reason, now) {
		s.cfg.Metrics.refusalsDropped.WithLabelValues(droppedByRate).Inc()
		return
	}
	f := &refused{reason: seen.refusal.Reason, at: now, request: seen.request, signed: s.policy.Signed(&seen.request)}
	if seen.event != nil {
		f.uploadID = seen.event.UploadID
	}
	select {
	case s.refusals.queue <- f:
	default:
		s.cfg.Metrics.refusalsDropped.WithLabelValues(droppedByQueue).Inc()
	}
}

// allow asks the reason's own limit first, so that a flood of one reason leaves room for
// the others.
func (f *refusals) allow(reason admission.Reason, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	own := f.reasons[reason]
	if own == nil {
		own = rate.NewLimiter(refusalsOfReasonPerSecond, refusalsOfOneAtOnce)
		f.reasons[reason] = own
	}
	return own.AllowN(now, 1) && f.all.AllowN(now, 1)
}

// run writes what waits every so often, until ctx ends, and then once more.
func (f *refusals) run(ctx context.Context, every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			f.flush(ctx)
		case <-ctx.Done():
			f.flush(context.WithoutCancel(ctx))
			return
		}
	}
}

func (f *refusals) flush(ctx context.Context) {
	var rows []event.RefusedCallback
	for n := len(f.queue); n > 0; n-- {
		if row, err := f.describe(<-f.queue); err != nil {
			f.logger.ErrorContext(ctx, "refusal was not kept", slog.String("error", err.Error()))
			f.metrics.refusalsDropped.WithLabelValues(droppedByPanic).Inc()
		} else {
			rows = append(rows, row)
		}
	}
	if len(rows) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, refusalTimeout)
	defer cancel()
	if err := f.store.Keep(ctx, rows); err != nil {
		f.logger.WarnContext(ctx, "refusals were not kept", slog.Int("refusals", len(rows)), slog.String("error", err.Error()))
		f.metrics.refusalsDropped.WithLabelValues(droppedByDatabase).Add(float64(len(rows)))
	}
}

// describe says what a refused callback claims. Its body can be anybody's: parsing is
// bounded, and a mistake in it must cost this row, not the process.
func (f *refusals) describe(r *refused) (row event.RefusedCallback, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	// A body that is no callback claims nothing, which is no error here.
	claimed, _ := callbackspec.Parse(r.request.ContentType, r.signed.Body, f.fields)
	row = event.RefusedCallback{
		Reason: string(r.reason), At: r.at, Source: r.request.Source, UploadID: r.uploadID,
		Bucket: cmp.Or(claimed.Bucket, r.request.Bucket), Object: claimed.Object,
		RequestID: cmp.Or(claimed.RequestID, r.request.RequestID),
	}
	if r.signed.Body != nil {
		if row.Digest, err = admission.Identify(r.signed, &claimed, r.request.RequestID); err == nil {
			return row, nil
		}
	}
	// It was not read, or nobody can have signed it. The signature tells one from
	// another, and no digest gives it away.
	digest := sha256.New()
	for _, part := range [][]byte{[]byte(r.signed.Target), r.signed.Body, []byte(r.signed.Authorization)} {
		digest.Write(part)
		digest.Write([]byte{0})
	}
	row.Digest = uuid.UUID(digest.Sum(nil)[:16])
	return row, nil
}
