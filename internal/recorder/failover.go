package recorder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"upcall/internal/event"
)

const (
	// moveAtOnce is how many events of the fallback go to PostgreSQL at once. They wait in
	// the same queue as new events, and delay those by less than one commit.
	moveAtOnce = 256
	// moveInFront is the same of a fallback that is in front of PostgreSQL, which commits nothing else.
	moveInFront = 512
	// moveTimeout limits one attempt to reach PostgreSQL.
	moveTimeout = 5 * time.Second
	// firstPause and longestPause limit the pauses between attempts to reach PostgreSQL.
	firstPause, longestPause = 50 * time.Millisecond, time.Second
	// fallbackShare is what the fallback gets of the time, or half of what is left.
	fallbackShare = time.Second
)

// Config configures a [Failover].
type Config struct {
	// PrimaryTimeout is PostgreSQL's full share of an event's time. With a fallback it gets no
	// more, and less if an event is late: the fallback needs the rest. Only an event that
	// had the full share can show that PostgreSQL is away. Required.
	PrimaryTimeout time.Duration
	// Durable is what the fallback is. Default InSpool.
	Durable Durable
	// Front puts callbacks into the fallback first. They move to PostgreSQL from there.
	Front bool
	// MaxEvents is the most events of one upload that go into the fallback before it is empty
	// again, so that one token cannot fill it. Default 0: no limit.
	MaxEvents int
	// Away says that PostgreSQL has not answered before.
	Away bool
	// Logger logs when PostgreSQL goes away and comes back. Required.
	Logger *slog.Logger
}

// A Failover stores an event in PostgreSQL, or in the fallback if PostgreSQL does not accept
// the event in time.
//
// When PostgreSQL does not answer in its share of the time it counts as away, and events do
// not wait for it until [Failover.Run] finds that it is back.
type Failover struct {
	primary  Primary
	fallback Fallback // nil if there is none
	config   Config
	full     expiry // of those with PostgreSQL's full share of the time

	away      atomic.Bool
	skipUntil atomic.Int64  // when a fallback in front is tried again, in nanoseconds since 1970
	unfit     atomic.Bool   // PostgreSQL answered that it accepts no row at all
	awaken    chan struct{} // tells Run that there is work; has room for one message

	mu     sync.Mutex
	events map[uuid.UUID]int // that went into the fallback, by upload
}

// New returns a Failover. A nil fallback means none.
func New(primary Primary, fallback Fallback, config Config) *Failover {
	config.Durable = cmp.Or(config.Durable, InSpool)
	f := &Failover{primary: primary, fallback: fallback, config: config, awaken: make(chan struct{}, 1), events: make(map[uuid.UUID]int)}
	f.away.Store(config.Away)
	f.wake() // an earlier process may have left events
	return f
}

var (
	errAway = fmt.Errorf("%w: it was away a moment ago", event.ErrUnavailable)
	// errMayWait is for a stream, in which others put events, too.
	errMayWait = fmt.Errorf("%w: the event may wait in the stream", event.ErrUnavailable)
)

// Record stores an event. An error wraps the primary's and, if the fallback was tried, the
// fallback's.
//
// An event may end up in both, because PostgreSQL can commit it too late. Moving it then
// finds a duplicate.
func (f *Failover) Record(ctx context.Context, e *event.Event) (Outcome, error) {
	if f.config.Front && e.Source != event.SourceNotification { // no uploader waits for a notification
		return f.front(ctx, e)
	}
	if f.fallback != nil && (f.fallback.Has(e.ID) || f.fallback.HasDeadLetter(e.ID)) {
		return Outcome{Durable: f.config.Durable, Duplicate: true}, nil
	}
	duplicate, err := f.commit(ctx, e)
	if err == nil {
		return Outcome{Durable: InPostgres, Duplicate: duplicate}, nil
	}
	if f.fallback == nil || !errors.Is(err, event.ErrUnavailable) || ctx.Err() != nil {
		return Outcome{}, err
	}
	if !f.takesMore(e.UploadID) {
		return Outcome{}, event.ErrOverused
	}
	duplicate, putErr := f.fallback.Put(ctx, e)
	if putErr != nil {
		return Outcome{}, fmt.Errorf("%w; %w", err, putErr)
	}
	f.wake()
	return Outcome{Durable: f.config.Durable, Duplicate: duplicate}, nil
}

// takesMore counts an event of an upload that is about to go into the fallback.
func (f *Failover) takesMore(upload uuid.NullUUID) bool {
	if f.config.MaxEvents <= 0 || !upload.Valid {
		return true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.events[upload.UUID] >= f.config.MaxEvents {
		return false
	}
	f.events[upload.UUID]++
	return true
}

// Find returns where an event is stored, or "" if it is not. A dead letter was acknowledged,
// too, and is still in the fallback.
func (f *Failover) Find(ctx context.Context, id uuid.UUID, upload uuid.NullUUID) (Durable, error) {
	if f.fallback != nil && (f.fallback.Has(id) || f.fallback.HasDeadLetter(id)) {
		return f.config.Durable, nil
	}
	if f.away.Load() {
		return "", errAway
	}
	found, err := f.primary.Find(ctx, id, upload)
	switch {
	case err != nil:
		return "", err
	case !found && f.config.Durable == InStream && f.fallback.Depth() > 0:
		return "", errMayWait
	case !found:
		return "", nil
	}
	return InPostgres, nil
}

// commit records an event in PostgreSQL, within PostgreSQL's share of the time.
func (f *Failover) commit(ctx context.Context, e *event.Event) (duplicate bool, err error) {
	if f.away.Load() {
		return false, errAway
	}
	now := time.Now()
	share := f.share(ctx, now)
	var bounded context.Context
	if share == f.config.PrimaryTimeout { // nearly always; a sender that goes away meanwhile makes no difference
		bounded = f.full.begin(now, share)
	} else {
		var cancel context.CancelFunc
		bounded, cancel = context.WithTimeout(ctx, share)
		defer cancel()
	}
	duplicate, err = f.record(bounded, e)
	// A sender that takes its time can leave PostgreSQL next to none, as often as it likes.
	if share >= f.config.PrimaryTimeout && saysAway(err) {
		f.failOver(ctx, err)
	}
	return duplicate, err
}

// share returns how long the first of the two may take.
func (f *Failover) share(ctx context.Context, now time.Time) time.Duration {
	left := f.config.PrimaryTimeout + fallbackShare
	if deadline, ok := ctx.Deadline(); ok {
		left = deadline.Sub(now)
	}
	if f.fallback == nil {
		return left
	}
	return min(f.config.PrimaryTimeout, max(left-fallbackShare, left/2))
}

// record notes whether PostgreSQL accepts rows.
func (f *Failover) record(ctx context.Context, e *event.Event) (duplicate bool, err error) {
	duplicate, err = f.primary.Record(ctx, e)
	switch {
	case errors.Is(err, event.ErrNoRowFits):
		f.unfit.Store(true)
	case err == nil && !duplicate && f.unfit.Load():
		f.unfit.Store(false)
	}
	return duplicate, err
}

// Check asks PostgreSQL whether it records. A refusal counts as one of an event does; that
// no answer came in the caller's time says nothing. After a schema accepted no row, one must
// fit: nobody sends callbacks to a receiver that is not ready.
func (f *Failover) Check(ctx context.Context) error {
	err := f.primary.Ping(ctx)
	if err != nil && ctx.Err() == nil {
		f.failOver(ctx, err)
	}
	if err == nil && f.unfit.Load() {
		if err = f.primary.Fits(ctx); err == nil {
			f.unfit.Store(false)
		}
	}
	return err
}

// saysAway reports whether an error means that PostgreSQL is away. A full queue means that too
// much arrived at once, a caller that went away says nothing about PostgreSQL, and to fail a
// row PostgreSQL must be there.
func saysAway(err error) bool {
	for _, other := range []error{event.ErrQueueFull, event.ErrDeadLetter, event.ErrNoRowFits, event.ErrExpiring, context.Canceled} {
		if errors.Is(err, other) {
			return false
		}
	}
	return errors.Is(err, event.ErrUnavailable)
}

func (f *Failover) failOver(ctx context.Context, err error) {
	if f.away.CompareAndSwap(false, true) {
		f.config.Logger.WarnContext(ctx, "database is away",
			slog.String("fallback", f.named()), slog.String("error", err.Error()))
		f.wake()
	}
}

// named returns the fallback's name, or "none".
func (f *Failover) named() string {
	if f.fallback == nil {
		return "none"
	}
	return string(f.config.Durable)
}

func (f *Failover) failBack(ctx context.Context) {
	if f.away.CompareAndSwap(true, false) {
		f.config.Logger.InfoContext(ctx, "database is back")
	}
}

func (f *Failover) wake() {
	select {
	case f.awaken <- struct{}{}:
	default:
	}
}

// Run moves the events of the fallback to PostgreSQL, oldest first, and finds out when
// PostgreSQL is back, until ctx ends. It asks PostgreSQL itself: events can fail for other
// reasons.
func (f *Failover) Run(ctx context.Context) {
	pause, most, total := firstPause, 1, 0
	for ctx.Err() == nil {
		if f.away.Load() {
			if err := f.ask(ctx); err != nil {
				f.rest(ctx, pause, nil)
				most, pause = 1, min(2*pause, longestPause)
				continue
			}
			f.failBack(ctx)
		}
		if f.fallback == nil || f.fallback.Depth() == 0 {
			if total > 0 {
				f.config.Logger.InfoContext(ctx, f.named()+" is empty", slog.Int("moved", total))
			}
			pause, total = firstPause, 0
			f.mu.Lock()
			clear(f.events)
			f.mu.Unlock()
			f.rest(ctx, longestPause, f.awaken) // dead letters can be queued again meanwhile
			continue
		}
		started := time.Now()
		moved, err := f.move(ctx, most)
		total += moved
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			f.config.Logger.DebugContext(ctx, f.named()+" was tried", slog.Int("moved", moved), slog.String("error", err.Error()))
			if err := f.ask(ctx); err != nil && ctx.Err() == nil {
				f.failOver(ctx, err)
			}
			// Continue with single events, so that a bad one cannot fail a whole commit.
			f.rest(ctx, pause, nil)
			most, pause = 1, min(2*pause, longestPause)
		case moved == 0: // all that wait were tried just now
			f.rest(ctx, firstPause, nil)
		default:
			pause, most = firstPause, min(2*most, f.atOnce())
			if f.primary.Depth() > 0 && !f.config.Front { // leave half of the time to new events
				f.rest(ctx, time.Since(started), nil)
			}
		}
	}
}

// atOnce returns how many events move together.
func (f *Failover) atOnce() int {
	if f.config.Front {
		return moveInFront
	}
	return moveAtOnce
}

// rest waits for a time, until ctx ends, or until it is awakened.
func (f *Failover) rest(ctx context.Context, d time.Duration, awaken <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-awaken:
	case <-ctx.Done():
	}
}

func (f *Failover) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, moveTimeout)
	defer cancel()
	return f.primary.Ping(ctx)
}

func (f *Failover) move(ctx context.Context, most int) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, moveTimeout)
	defer cancel()
	return f.fallback.Move(ctx, f.record, most)
}
