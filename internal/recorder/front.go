package recorder

import (
	"context"
	"errors"
	"fmt"
	"time"

	"upcall/internal/event"
)

// front stores an event in the fallback first, and in PostgreSQL only if the fallback does not take it in its share
// of the time: for bursts beyond PostgreSQL. Whether its upload was revoked, or has too many events, is found out when
// it moves.
func (f *Failover) front(ctx context.Context, e *event.Event) (Outcome, error) {
	if f.fallback.HasDeadLetter(e.ID) {
		return Outcome{Durable: f.config.Durable, Duplicate: true}, nil
	}
	duplicate, err := f.putFirst(ctx, e)
	if err == nil {
		f.wake()
		return Outcome{Durable: f.config.Durable, Duplicate: duplicate}, nil
	}
	if errors.Is(err, event.ErrUnstorable) || ctx.Err() != nil {
		return Outcome{}, err
	}
	if f.away.Load() {
		return Outcome{}, fmt.Errorf("%w; %w", errAway, err)
	}
	duplicate, primaryErr := f.record(ctx, e)
	if primaryErr != nil {
		return Outcome{}, fmt.Errorf("%w; %w", primaryErr, err)
	}
	return Outcome{Durable: InPostgres, Duplicate: duplicate}, nil
}

// skipFor is how long callbacks do not wait for a fallback in front that has just failed.
const skipFor = time.Second

var errSkipped = errors.New("the stream failed a moment ago")

// putFirst puts an event into the fallback in its share of the time. While PostgreSQL takes events, a fallback that has
// just failed is not waited for.
func (f *Failover) putFirst(ctx context.Context, e *event.Event) (duplicate bool, err error) {
	if !f.away.Load() && time.Now().UnixNano() < f.skipUntil.Load() {
		return false, errSkipped
	}
	bounded, cancel := context.WithTimeout(ctx, f.share(ctx, time.Now()))
	defer cancel()
	duplicate, err = f.fallback.Put(bounded, e)
	if err != nil && !errors.Is(err, event.ErrUnstorable) && ctx.Err() == nil {
		f.skipUntil.Store(time.Now().Add(skipFor).UnixNano())
	}
	return duplicate, err
}
