package recorder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"upcall/internal/event"
)

const (
	// moveAtOnce is how many events of the fallback go to PostgreSQL at once. They wait in
	// the same queue as new events, and delay those by less than one commit.
	moveAtOnce = 256
	// moveTimeout limits one attempt to reach PostgreSQL.
	moveTimeout = 5 * time.Second
	// firstPause and longestPause limit the pauses between attempts to reach PostgreSQL.
	firstPause, longestPause = 50 * time.Millisecond, time.Second
)

// Config configures a [Failover].
type Config struct {
	// PrimaryTimeout is how long PostgreSQL may take for an event if there is a fallback,
	// but at most half of the event's time: the fallback needs the rest. Required with a
	// fallback.
	PrimaryTimeout time.Duration
	// Away says that PostgreSQL has not answered before.
	Away bool
	// Logger logs when PostgreSQL goes away and comes back. Required.
	Logger *slog.Logger
}

// A Failover stores an event in PostgreSQL, or in the fallback if PostgreSQL does not accept
// the event in time.
//
// After a failure PostgreSQL counts as away, and events do not wait for it until
// [Failover.Run] finds that it is back.
type Failover struct {
	primary  Primary
	fallback Fallback // nil if there is none
	config   Config

	away   atomic.Bool
	awaken chan struct{} // tells Run that there is work; has room for one message
}

// New returns a Failover. A nil fallback means none.
func New(primary Primary, fallback Fallback, config Config) *Failover {
	f := &Failover{primary: primary, fallback: fallback, config: config, awaken: make(chan struct{}, 1)}
	f.away.Store(config.Away)
	f.wake() // an earlier process may have left events
	return f
}

var errAway = fmt.Errorf("%w: it was away a moment ago", event.ErrUnavailable)

// Record stores an event. An error wraps the primary's and, if the fallback was tried, the
// fallback's.
//
// An event may end up in both, because PostgreSQL can commit it too late. Moving it then
// finds a duplicate.
func (f *Failover) Record(ctx context.Context, e *event.Event) (Outcome, error) {
	if f.fallback != nil && f.fallback.Has(e.ID) {
		return Outcome{Durable: InSpool, Duplicate: true}, nil
	}
	duplicate, err := f.commit(ctx, e)
	if err == nil {
		return Outcome{Durable: InPostgres, Duplicate: duplicate}, nil
	}
	if f.fallback == nil || !errors.Is(err, event.ErrUnavailable) || ctx.Err() != nil {
		return Outcome{}, err
	}
	duplicate, putErr := f.fallback.Put(ctx, e)
	if putErr != nil {
		return Outcome{}, fmt.Errorf("%w; %w", err, putErr)
	}
	f.wake()
	return Outcome{Durable: InSpool, Duplicate: duplicate}, nil
}

// Find returns where an event is stored, or "" if it is not. A dead letter was acknowledged,
// too, and is still in the fallback.
func (f *Failover) Find(ctx context.Context, id uuid.UUID, upload uuid.NullUUID) (Durable, error) {
	if f.fallback != nil && (f.fallback.Has(id) || f.fallback.HasDeadLetter(id)) {
		return InSpool, nil
	}
	if f.away.Load() {
		return "", errAway
	}
	found, err := f.primary.Find(ctx, id, upload)
	if err != nil || !found {
		return "", err
	}
	return InPostgres, nil
}

// commit records an event in PostgreSQL, within PostgreSQL's share of the time.
func (f *Failover) commit(ctx context.Context, e *event.Event) (duplicate bool, err error) {
	if f.away.Load() {
		return false, errAway
	}
	bounded := ctx
	if f.fallback != nil {
		timeout := f.config.PrimaryTimeout
		if deadline, ok := ctx.Deadline(); ok {
			timeout = min(timeout, time.Until(deadline)/2)
		}
		var cancel context.CancelFunc
		bounded, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	duplicate, err = f.primary.Record(bounded, e)
	// A full queue means that too much arrived at once, and a caller that went away says
	// nothing about PostgreSQL.
	if errors.Is(err, event.ErrUnavailable) && !errors.Is(err, event.ErrQueueFull) && !errors.Is(err, context.Canceled) {
		f.failOver(ctx, err)
	}
	return duplicate, err
}

// Check asks PostgreSQL whether it records. A refusal counts as one of an event does; that
// no answer came in the caller's time says nothing.
func (f *Failover) Check(ctx context.Context) error {
	err := f.primary.Ping(ctx)
	if err != nil && ctx.Err() == nil {
		f.failOver(ctx, err)
	}
	return err
}

func (f *Failover) failOver(ctx context.Context, err error) {
	if f.away.CompareAndSwap(false, true) {
		f.config.Logger.WarnContext(ctx, "database is away",
			slog.Bool("spool", f.fallback != nil), slog.String("error", err.Error()))
		f.wake()
	}
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
// PostgreSQL is back, until ctx ends. It does both at once: moving the first event shows
// whether PostgreSQL is back.
func (f *Failover) Run(ctx context.Context) {
	pause, most, total := firstPause, 1, 0
	for {
		waiting := f.fallback != nil && f.fallback.Depth() > 0
		if !waiting {
			if total > 0 {
				f.config.Logger.InfoContext(ctx, "spool is empty", slog.Int("moved", total))
				total = 0
			}
			if !f.away.Load() {
				select {
				case <-f.awaken:
					continue
				case <-ctx.Done():
					return
				}
			}
		}
		started := time.Now()
		moved, err := f.try(ctx, waiting, most)
		total += moved
		rest := time.Duration(0)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			f.config.Logger.DebugContext(ctx, "database was tried", slog.Int("moved", moved), slog.String("error", err.Error()))
			// Continue with single events, so that a bad one cannot fail a whole commit.
			most, rest, pause = 1, pause, min(2*pause, longestPause)
		case !waiting:
			pause, rest = firstPause, firstPause
		default:
			pause, most = firstPause, min(2*most, moveAtOnce)
			if f.primary.Depth() > 0 { // leave half of the time to new events
				rest = time.Since(started)
			}
		}
		select {
		case <-time.After(rest):
		case <-ctx.Done():
			return
		}
	}
}

// try moves the oldest events of the fallback or, if none wait, only pings PostgreSQL.
func (f *Failover) try(ctx context.Context, waiting bool, most int) (moved int, err error) {
	bounded, cancel := context.WithTimeout(ctx, moveTimeout)
	defer cancel()
	if !waiting {
		if err := f.primary.Ping(bounded); err != nil {
			return 0, err
		}
		f.failBack(ctx)
		return 0, nil
	}
	moved, err = f.fallback.Move(bounded, f.primary.Record, most)
	if moved > 0 {
		f.failBack(ctx)
	}
	return moved, err
}
