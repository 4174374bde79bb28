package spool

import (
	"fmt"

	"github.com/google/uuid"
	bolt "go.etcd.io/bbolt"
)

// Retry has dead letters wait again, behind all others. They are on disk as such when it
// returns. An error wraps [ErrNoDeadLetter] if one of the IDs is not a dead letter's, or
// [event.ErrSpoolUnwritable]; nothing has changed then.
func (s *Spool) Retry(ids []uuid.UUID) error {
	s.file.Lock()
	defer s.file.Unlock()
	var again []*record
	err := s.update(func(tx *bolt.Tx) error {
		for _, id := range ids {
			r, err := takeDeadLetter(tx, id)
			if err != nil {
				return err
			}
			if s.Has(id) { // it came once more and waits
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
			again = append(again, r)
		}
		return addCount(tx, queuedBucket, len(again))
	})
	if err != nil {
		return fmt.Errorf("retry dead letters: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range again {
		s.ids[r.ID] = struct{}{}
	}
	if len(again) > 0 && s.stats.Queued == 0 {
		s.stats.Oldest = again[0].ReceivedAt
	}
	s.stats.Queued += len(again)
	s.stats.DeadLetters -= len(ids)
	return nil
}

// Discard deletes dead letters: they are lost. Errors are as with
// [Spool.Retry].
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
	s.stats.DeadLetters -= len(ids)
	s.mu.Unlock()
	s.shrink()
	return nil
}

// HasDeadLetter says whether the callback with this ID is a dead letter.
func (s *Spool) HasDeadLetter(id uuid.UUID) bool {
	if s.Stats().DeadLetters == 0 {
		return false // without a look at the disk, or a wait for it
	}
	s.file.Lock()
	defer s.file.Unlock()
	there := false
	_ = s.db.View(func(tx *bolt.Tx) error { // only a closed spool has an error here, and holds nothing
		there = tx.Bucket(deadBucket).Get(id[:]) != nil
		return nil
	})
	return there
}

// takeDeadLetter takes a callback out of the dead letters.
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
