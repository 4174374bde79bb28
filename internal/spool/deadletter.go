package spool

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"

	"upcall/internal/kept"

	"github.com/google/uuid"
	bolt "go.etcd.io/bbolt"
)

// Retry queues dead letters again, behind all others, and returns when that is on disk. An
// error wraps [ErrNoDeadLetter] if an ID is not that of a dead letter, or
// [event.ErrSpoolUnwritable]. After an error nothing has changed.
func (s *Spool) Retry(ids []uuid.UUID) error {
	s.file.Lock()
	defer s.file.Unlock()
	err := s.update(func(tx *bolt.Tx) error {
		for _, id := range ids {
			frame, err := takeDeadLetter(tx, id)
			if err != nil {
				return err
			}
			if s.Has(id) { // it arrived again
				continue
			}
			waiting := kept.Flagged(frame, false)
			if r, err := kept.Decode(frame); err == nil { // perhaps it is for another version to decode
				r.Dead = nil
				if encoded, err := kept.Encode(r); err == nil {
					waiting = encoded
				}
			}
			if err := appendQueued(tx, waiting); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("retry dead letters: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		delete(s.dead, id)
		s.ids[id] = struct{}{}
	}
	return nil
}

// Discard deletes dead letters permanently. Its errors are those of [Spool.Retry].
func (s *Spool) Discard(ids []uuid.UUID) error {
	s.file.Lock()
	defer s.file.Unlock()
	err := s.update(func(tx *bolt.Tx) error {
		for _, id := range ids {
			if _, err := takeDeadLetter(tx, id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("discard dead letters: %w", err)
	}
	s.mu.Lock()
	for _, id := range ids {
		delete(s.dead, id)
	}
	s.mu.Unlock()
	s.shrink()
	return nil
}

// HasDeadLetter reports whether the callback with this ID is a dead letter.
func (s *Spool) HasDeadLetter(id uuid.UUID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, there := s.dead[id]
	return there
}

// takeDeadLetter removes a dead letter and returns its frame.
func takeDeadLetter(tx *bolt.Tx, id uuid.UUID) ([]byte, error) {
	dead := tx.Bucket(deadBucket)
	frame := bytes.Clone(dead.Get(id[:]))
	if frame == nil {
		return nil, fmt.Errorf("%w: %s", ErrNoDeadLetter, id)
	}
	if _, err := kept.Check(frame); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err := dead.Delete(id[:]); err != nil {
		return nil, err
	}
	return frame, addCount(tx, deadBucket, -1)
}

// DeadLetters returns dead letters for display, at most so many, in no order that matters.
func (s *Spool) DeadLetters(most int) ([]kept.Entry, error) {
	ids := s.deadLetters()
	slices.SortFunc(ids, func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	entries, err := s.entries(ids[:min(len(ids), most)])
	if err != nil {
		return nil, fmt.Errorf("list dead letters: %w", err)
	}
	return entries, nil
}

// Change carries out a request, as [Change] does from another process. What was changed is logged.
func (s *Spool) Change(ctx context.Context, r Request, visit func(kept.Entry) error) error {
	changed := 0
	err := s.change(ctx, r, func(e kept.Entry) error { changed++; return visit(e) })
	attrs := []slog.Attr{slog.String("action", r.Action), slog.Int("changed", changed)}
	if err != nil {
		attrs = append(attrs, slog.String("error", err.Error()))
	}
	s.config.Logger.LogAttrs(ctx, slog.LevelInfo, "dead letters changed on request", attrs...)
	return err
}
