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
	"upcall/internal/capture"
	"upcall/internal/event"
	"upcall/internal/verify"
)

// Anyone can send callbacks that are refused, as fast as they like. So only some are kept
// for each reason, and the others are counted.
const (
	refusalsPerSecond, refusalsAtOnce              = 20, 100 // of all reasons together
	refusalsOfReasonPerSecond, refusalsOfOneAtOnce = 5, 50
	// refusalQueue is how many may wait to be written, each with a body of up to
	// admission.MaxBody.
	refusalQueue = 128
	// refusalsEvery is how often the waiting ones are written.
	refusalsEvery = time.Second
	// refusalTimeout limits the writing. While PostgreSQL cannot be reached, they are dropped.
	refusalTimeout = 2 * time.Second
	// lastRefusalTimeout limits it at the end, which must not wait for PostgreSQL.
	lastRefusalTimeout = 500 * time.Millisecond
)

// A RefusalStore keeps refused callbacks, as eventstore.Refusals does. It is an interface so
// that tests can block it.
type RefusalStore interface {
	Keep(ctx context.Context, refusals []event.RefusedCallback) error
}

// A refused callback waits to be described. Nothing changes the request after the answer.
type refused struct {
	reason   admission.Reason
	at       time.Time
	uploadID uuid.NullUUID
	request  admission.Request
	signed   verify.Request // the signed part of request

	row *event.RefusedCallback // of a request that was no callback; then only at counts besides
}

// refusals keeps refused callbacks without delaying the answers.
type refusals struct {
	cfg   Config
	queue chan *refused
	// Captures have limits of their own: anyone can have wrong paths captured, which are not kept in the
	// table, and must not push rows out of it.
	rows, captures *limits
}

func newRefusals(cfg Config) *refusals {
	return &refusals{
		cfg:      cfg,
		queue:    make(chan *refused, refusalQueue),
		rows:     newLimits(),
		captures: newLimits(),
	}
}

// limits let a part of a flood pass.
type limits struct {
	mu      sync.Mutex // guards the fields below
	all     *rate.Limiter
	reasons map[admission.Reason]*rate.Limiter // few, because senders cannot invent reasons
}

func newLimits() *limits {
	return &limits{all: rate.NewLimiter(refusalsPerSecond, refusalsAtOnce), reasons: make(map[admission.Reason]*rate.Limiter)}
}

// isKept reports whether a refusal goes to the table. A 503 says nothing about the callback,
// a request with a wrong path or method is not a callback, and the recorder itself keeps
// callbacks of revoked uploads.
func isKept(r *admission.Refusal) bool {
	switch r.Code {
	case admission.Unavailable, admission.NotFound, admission.MethodNotAllowed:
		return false
	}
	return r.Reason != admission.ReasonTokenRevoked
}

// noteRefusal queues a refusal to be kept, and has it captured, unless there are too many. It does not block.
func (s *Server) noteRefusal(seen *logEvent, captured bool) {
	now, reason := s.cfg.Now(), seen.refusal.Reason
	switch {
	case !captured:
	case s.refusals.captures.allow(reason, now):
		seen.captureAt = now
	default:
		s.cfg.Captures.Drop(capture.DroppedByRate)
	}
	if s.refusals.cfg.Refusals == nil || !isKept(seen.refusal) || !s.allowRefusal(reason, now) {
		return
	}
	f := &refused{reason: reason, at: now, request: seen.request, signed: s.policy.Signed(&seen.request)}
	if seen.event != nil {
		f.uploadID = seen.event.UploadID
	}
	s.queueRefusal(f)
}

// Refused queues the refusal of a request that was no callback, as one of a callback: the limits
// are those of the listener. describe must not block. It is called only if there are not too many.
func (s *Server) Refused(r *admission.Refusal, at time.Time, describe func() event.RefusedCallback) {
	if s.refusals.cfg.Refusals == nil || !isKept(r) || !s.allowRefusal(r.Reason, at) {
		return
	}
	row := describe()
	s.queueRefusal(&refused{at: at, row: &row})
}

func (s *Server) allowRefusal(reason admission.Reason, at time.Time) bool {
	allowed := s.refusals.rows.allow(reason, at)
	if !allowed {
		s.cfg.Metrics.refusalsDropped.WithLabelValues(droppedByRate).Inc()
	}
	return allowed
}

func (s *Server) queueRefusal(f *refused) {
	select {
	case s.refusals.queue <- f:
	default:
		s.cfg.Metrics.refusalsDropped.WithLabelValues(droppedByQueue).Inc()
	}
}

// allow checks the limit of the reason first, so that a flood of one reason leaves room for
// the others.
func (l *limits) allow(reason admission.Reason, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reasons[reason] == nil {
		l.reasons[reason] = rate.NewLimiter(refusalsOfReasonPerSecond, refusalsOfOneAtOnce)
	}
	return l.reasons[reason].AllowN(now, 1) && l.all.AllowN(now, 1)
}

// run writes the waiting refusals at every interval until ctx ends, and then once more.
func (f *refusals) run(ctx context.Context, every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			f.flush(ctx)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastRefusalTimeout)
			defer cancel()
			f.flush(last)
			return
		}
	}
}

func (f *refusals) flush(ctx context.Context) {
	var rows []event.RefusedCallback
	for n := len(f.queue); n > 0; n-- {
		if row, err := f.describe(<-f.queue); err != nil {
			f.cfg.Logger.ErrorContext(ctx, "refusal was not kept", slog.String("error", err.Error()))
			f.cfg.Metrics.refusalsDropped.WithLabelValues(droppedByPanic).Inc()
		} else {
			rows = append(rows, row)
		}
	}
	if len(rows) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, refusalTimeout)
	defer cancel()
	if err := f.cfg.Refusals.Keep(ctx, rows); err != nil {
		f.cfg.Logger.WarnContext(ctx, "refusals were not kept", slog.Int("refusals", len(rows)), slog.String("error", err.Error()))
		f.cfg.Metrics.refusalsDropped.WithLabelValues(droppedByDatabase).Add(float64(len(rows)))
	}
}

// describe returns the row of a refused callback: what it claims. Its body may come from
// anyone: parsing is bounded, and a panic in it must cost this row, not the process.
func (f *refusals) describe(r *refused) (row event.RefusedCallback, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	if r.row != nil {
		return *r.row, nil
	}
	// A body that is not a callback claims nothing, which is not an error here.
	claimed, _ := callbackspec.Parse(r.request.ContentType, r.signed.Body, f.cfg.Admission.Fields)
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
	// The body was not read, or cannot have been signed. The signature tells such callbacks
	// apart, and the digest does not reveal it.
	digest := sha256.New()
	for _, part := range [][]byte{[]byte(r.signed.Target), r.signed.Body, []byte(r.signed.Authorization)} {
		digest.Write(part)
		digest.Write([]byte{0})
	}
	row.Digest = uuid.UUID(digest.Sum(nil)[:16])
	return row, nil
}
