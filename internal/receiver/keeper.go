package receiver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"upcall/internal/event"
	"upcall/internal/intake"
	"upcall/internal/spool"
)

const (
	// postgresShare is what PostgreSQL gets of a callback's time when there is a spool
	// to turn to: half of intake.Deadline, so that the disk gets the other half.
	postgresShare = intake.Deadline / 2
	// moveAtOnce is how many spooled callbacks go to PostgreSQL at once. They wait in
	// the same queue as those that just arrived, and so hold these up by less than one
	// commit.
	moveAtOnce = 256
	// firstPause and longestPause are between attempts to reach PostgreSQL.
	firstPause, longestPause = 50 * time.Millisecond, time.Second
)

// A store is PostgreSQL: an eventstore.Recorder. It is an interface so that tests can
// have an answer come late.
type store interface {
	spool.Store
	Find(ctx context.Context, id uuid.UUID, upload uuid.NullUUID) (bool, error)
	Ping(ctx context.Context) error
	Depth() int
}

// A keeper is where it is decided what keeps a callback: PostgreSQL, or the spool when
// PostgreSQL does not take it in time, or nothing.
//
// After a failure PostgreSQL counts as away, and no callback waits for it; run finds out
// when it is back.
type keeper struct {
	store  store
	spool  *spool.Spool // nil: there is none
	logger *slog.Logger
	share  time.Duration // postgresShare; tests have more patience, or less

	away   atomic.Bool
	awaken chan struct{} // has room for one: there is work for run
}

func newKeeper(store store, spool *spool.Spool, logger *slog.Logger) *keeper {
	k := &keeper{store: store, spool: spool, logger: logger, share: postgresShare, awaken: make(chan struct{}, 1)}
	k.wake() // an earlier process may have left something
	return k
}

var errAway = fmt.Errorf("%w: it was away a moment ago", event.ErrUnavailable)

// Record keeps an event. An error wraps those of eventstore.Recorder and, where the
// spool was tried, those of spool.Spool.
//
// An event may end up in both: PostgreSQL can commit it after its time. Then moving it
// finds a duplicate.
func (k *keeper) Record(ctx context.Context, e *event.Event) (intake.Outcome, error) {
	if k.spool != nil && k.spool.Has(e.ID) {
		return intake.Outcome{Durable: intake.InSpool, Duplicate: true}, nil
	}
	duplicate, err := k.commit(ctx, e)
	if err == nil {
		return intake.Outcome{Durable: intake.InPostgres, Duplicate: duplicate}, nil
	}
	if k.spool == nil || !errors.Is(err, event.ErrUnavailable) || ctx.Err() != nil {
		return intake.Outcome{}, err
	}
	duplicate, spoolErr := k.spool.Put(ctx, e)
	if spoolErr != nil {
		return intake.Outcome{}, fmt.Errorf("%w; %w", err, spoolErr)
	}
	k.wake()
	return intake.Outcome{Durable: intake.InSpool, Duplicate: duplicate}, nil
}

// Find tells where an event was recorded before. One that PostgreSQL refused later was
// acknowledged, too, and is in the spool still.
func (k *keeper) Find(ctx context.Context, id uuid.UUID, upload uuid.NullUUID) (intake.Durable, error) {
	if k.spool != nil && (k.spool.Has(id) || k.spool.Refused(id)) {
		return intake.InSpool, nil
	}
	if k.away.Load() {
		return "", errAway
	}
	found, err := k.store.Find(ctx, id, upload)
	if err != nil || !found {
		return "", err
	}
	return intake.InPostgres, nil
}

// commit records an event in PostgreSQL, in PostgreSQL's share of the time.
func (k *keeper) commit(ctx context.Context, e *event.Event) (duplicate bool, err error) {
	if k.away.Load() {
		return false, errAway
	}
	bounded := ctx
	if k.spool != nil {
		share := k.share
		if deadline, ok := ctx.Deadline(); ok {
			share = min(share, time.Until(deadline)/2)
		}
		var cancel context.CancelFunc
		bounded, cancel = context.WithTimeout(ctx, share)
		defer cancel()
	}
	duplicate, err = k.store.Record(bounded, e)
	// A full queue says that too much came at once, and a caller who went away says
	// nothing of PostgreSQL.
	if errors.Is(err, event.ErrUnavailable) && !errors.Is(err, event.ErrQueueFull) && !errors.Is(err, context.Canceled) {
		k.lost(ctx, err)
	}
	return duplicate, err
}

func (k *keeper) lost(ctx context.Context, err error) {
	if k.away.CompareAndSwap(false, true) {
		k.logger.WarnContext(ctx, "database is away", slog.Bool("spool", k.spool != nil), slog.String("error", err.Error()))
		k.wake()
	}
}

func (k *keeper) back(ctx context.Context) {
	if k.away.CompareAndSwap(true, false) {
		k.logger.InfoContext(ctx, "database is back")
	}
}

func (k *keeper) wake() {
	select {
	case k.awaken <- struct{}{}:
	default:
	}
}

// run moves what is spooled to PostgreSQL, oldest first, and finds out when PostgreSQL is
// back, until ctx ends. The two are one: the first callback to move is the attempt.
func (k *keeper) run(ctx context.Context) {
	pause, most, total := firstPause, 1, 0
	for {
		waiting := k.spool != nil && k.spool.Stats().Queued > 0
		if !waiting {
			if total > 0 {
				k.logger.InfoContext(ctx, "spool is empty", slog.Int("moved", total))
				total = 0
			}
			if !k.away.Load() {
				select {
				case <-k.awaken:
					continue
				case <-ctx.Done():
					return
				}
			}
		}
		started := time.Now()
		moved, err := k.try(ctx, waiting, most)
		total += moved
		rest := time.Duration(0)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			k.logger.DebugContext(ctx, "database was tried", slog.Int("moved", moved), slog.String("error", err.Error()))
			// One at a time, so that an event that brings down what it is in is alone.
			most, rest, pause = 1, pause, min(2*pause, longestPause)
		case !waiting:
			pause, rest = firstPause, firstPause
		default:
			pause, most = firstPause, min(2*most, moveAtOnce)
			if k.store.Depth() > 0 { // half of the time is for what arrives
				rest = time.Since(started)
			}
		}
		if !sleep(ctx, rest) {
			return
		}
	}
}

// try moves the oldest of what waits in the spool, or just asks PostgreSQL.
func (k *keeper) try(ctx context.Context, waiting bool, most int) (moved int, err error) {
	bounded, cancel := context.WithTimeout(ctx, databaseTimeout)
	defer cancel()
	if !waiting {
		if err := k.store.Ping(bounded); err != nil {
			return 0, err
		}
		k.back(ctx)
		return 0, nil
	}
	moved, err = k.spool.Move(bounded, k.store, most)
	if moved > 0 {
		k.back(ctx)
	}
	return moved, err
}

// sleep returns false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
