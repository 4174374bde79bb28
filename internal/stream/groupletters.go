package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"upcall/internal/event"
	"upcall/internal/kept"
)

// Erase is [Stream.Erase] for all streams.
func (g *Group) Erase(ctx context.Context, requests []event.Erasure) (erased int, err error) {
	for _, p := range g.parts {
		n, failed := p.Erase(ctx, requests)
		erased, err = erased+n, errors.Join(err, failed)
	}
	return erased, err
}

// Read calls visit for each callback in the streams: those that wait, then the dead letters.
func (g *Group) Read(ctx context.Context, visit func(kept.Entry) error) error {
	waiting := once(visit)
	for _, p := range g.parts {
		if err := p.readWaiting(ctx, waiting); err != nil {
			return fmt.Errorf("read stream %s: %w", p.config.Name, err)
		}
	}
	return g.ReadDead(ctx, visit)
}

// ReadDead calls visit for each dead letter.
func (g *Group) ReadDead(ctx context.Context, visit func(kept.Entry) error) error {
	visit = once(visit)
	for _, p := range g.parts {
		if err := p.ReadDead(ctx, visit); err != nil {
			return fmt.Errorf("read stream %s: %w", p.config.Name, err)
		}
	}
	return nil
}

// DeadLetters returns the IDs of all dead letters.
func (g *Group) DeadLetters(ctx context.Context) (ids []uuid.UUID, err error) {
	err = g.ReadDead(ctx, func(e kept.Entry) error { ids = append(ids, e.ID); return nil })
	return ids, err
}

// Retry queues dead letters again, as [Stream.Retry] does.
func (g *Group) Retry(ctx context.Context, ids []uuid.UUID, visit func(kept.Entry) error) error {
	return g.change(ctx, ids, visit, (*Stream).Retry)
}

// Discard deletes dead letters permanently, as [Stream.Discard] does.
func (g *Group) Discard(ctx context.Context, ids []uuid.UUID, visit func(kept.Entry) error) error {
	return g.change(ctx, ids, visit, (*Stream).Discard)
}

// change changes dead letters in each of the streams that have them.
func (g *Group) change(ctx context.Context, ids []uuid.UUID, visit func(kept.Entry) error,
	action func(*Stream, context.Context, []uuid.UUID, func(kept.Entry) error) error,
) error {
	unknown := make(map[uuid.UUID]bool)
	for i, id := range ids {
		if slices.Contains(ids[:i], id) {
			return fmt.Errorf("%w: %s: it is named twice", ErrNoDeadLetter, id)
		}
		unknown[id] = true
	}
	theirs := make([][]uuid.UUID, len(g.parts))
	for i, p := range g.parts {
		dead, err := p.DeadLetters(ctx)
		if err != nil {
			return fmt.Errorf("read dead letters of stream %s: %w", p.config.Name, err)
		}
		for _, id := range ids {
			if slices.Contains(dead, id) {
				theirs[i] = append(theirs[i], id)
				delete(unknown, id)
			}
		}
	}
	for _, id := range ids {
		if unknown[id] {
			return fmt.Errorf("%w: %s: receiver stream list shows all", ErrNoDeadLetter, id)
		}
	}
	visit = once(visit)
	for i, p := range g.parts {
		if len(theirs[i]) == 0 {
			continue
		}
		if err := action(p, ctx, theirs[i], visit); err != nil {
			return err
		}
	}
	return nil
}
