package spool

import (
	"fmt"

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
			r, err := takeDeadLetter(tx, id)
			if err != nil {
				return err
			}
			if s.Has(id) { // it arrived again
				continue
			}
			r.dead = nil
			frame, err := encode(r)
			if err != nil {
				return err
			}
			if err := appendQueued(tx, frame); err != nil {
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

// takeDeadLetter removes a dead letter and returns it.
func takeDeadLetter(tx *bolt.Tx, id uuid.UUID) (*record, error) {
	dead := tx.Bucket(deadBucket)
	frame := dead.Get(id[:])
	if frame == nil {
		return nil, fmt.Errorf("%w: %s", ErrNoDeadLetter, id)
	}
	r, err := decode(frame)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err := dead.Delete(id[:]); err != nil {
		return nil, err
	}
	return r, addCount(tx, deadBucket, -1)
}
