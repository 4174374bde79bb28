package receiver

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"time"

	"upcall/internal/event"
	"upcall/internal/spool"
)

const (
	// eraseEvery is how often a receiver looks for requests to erase.
	eraseEvery = 10 * time.Second
	// eraseOverlap is the longest from the time of a request to its commit.
	eraseOverlap = time.Minute
)

// A fallbackEraser erases what is asked for from the fallback. PostgreSQL does so for what comes out of it, but dead
// letters stay there, and so do remains of what has come out of the spool.
type fallbackEraser struct {
	requests func(ctx context.Context, since time.Time) ([]event.Erasure, error)
	queue    fallback
	name     string
	logger   *slog.Logger

	known []event.Erasure // in the order of their times
}

// run works until ctx ends.
func (x *fallbackEraser) run(ctx context.Context) {
	ticker := time.NewTicker(eraseEvery)
	defer ticker.Stop()
	for {
		if err := x.once(ctx); err != nil && ctx.Err() == nil {
			x.logger.DebugContext(ctx, x.name+" was not erased", slog.String("error", err.Error()))
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// once erases what new requests ask for. One that was interrupted and goes on is new again.
func (x *fallbackEraser) once(ctx context.Context) error {
	var since time.Time
	if n := len(x.known); n > 0 {
		since = x.known[n-1].Before.Add(-eraseOverlap)
	}
	lately, err := x.requests(ctx, since)
	if err != nil {
		return err
	}
	all := slices.Clone(x.known)
	for _, a := range lately {
		if !slices.ContainsFunc(x.known, func(b event.Erasure) bool {
			return a.Before.Equal(b.Before) && a.Upload == b.Upload && bytes.Equal(a.Digest, b.Digest)
		}) {
			all = append(all, a)
		}
	}
	if len(all) == len(x.known) {
		return nil
	}
	slices.SortStableFunc(all, func(a, b event.Erasure) int { return a.Before.Compare(b.Before) })
	erased, err := x.queue.Erase(ctx, all)
	if err != nil {
		return err
	}
	x.known = all
	x.logger.InfoContext(ctx, x.name+" erased on request", slog.Int("callbacks", erased))
	if queue, ok := x.queue.(*spool.Spool); ok && queue.Stats().Damaged > 0 {
		x.logger.WarnContext(ctx, "damaged spool files may hold what was to be erased: delete them", slog.Int("files", queue.Stats().Damaged))
	}
	return nil
}
