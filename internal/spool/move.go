package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	bolt "go.etcd.io/bbolt"

	"upcall/internal/event"
)

// A waiting event.
type waiting struct {
	key    []byte
	record *record
	err    error // from recording it
}

// Move calls record for the oldest events, up to most of them, all at once so that they can
// share a commit. It removes those that are recorded and returns their number.
//
// An event that can never be recorded becomes a dead letter, and Move logs that. So does an
// event of a month that is being dropped: dropping waits for all readers of the month, and
// the other events must not wait with it. An event that cannot be recorded now stays where
// it is, and Move returns record's error. If an event is recorded but not removed, because
// the process ends or the disk fails, it is recorded again later, as a duplicate.
func (s *Spool) Move(
	ctx context.Context, record func(context.Context, *event.Event) (duplicate bool, err error), most int,
) (moved int, err error) {
	events, err := s.oldest(most)
	if err != nil {
		return 0, err
	}
	var group sync.WaitGroup
	for _, w := range events {
		group.Go(func() { _, w.err = record(ctx, &w.record.Event) })
	}
	group.Wait()
	var settled []*waiting
	for _, w := range events {
		switch {
		case w.err == nil:
			moved++
		case ctx.Err() != nil, errors.Is(w.err, event.ErrUnavailable) && !errors.Is(w.err, event.ErrExpiring):
			err = fmt.Errorf("move spooled callbacks: %w", w.err)
			continue
		}
		settled = append(settled, w)
	}
	return moved, errors.Join(err, s.settle(ctx, settled))
}

// oldest returns the events that have waited longest.
func (s *Spool) oldest(most int) ([]*waiting, error) {
	s.file.Lock()
	defer s.file.Unlock()
	var events []*waiting
	err := s.db.View(func(tx *bolt.Tx) error {
		cursor := tx.Bucket(queuedBucket).Cursor()
		for key, frame := cursor.First(); key != nil && len(events) < most; key, frame = cursor.Next() {
			r, err := decode(frame)
			if err != nil {
				return fmt.Errorf("%w: %w: restart the receiver to recover", ErrDamaged, err)
			}
			events = append(events, &waiting{key: bytes.Clone(key), record: r})
		}
		return nil
	})
	return events, err
}

// settle removes events from the queue. Those with an error become dead letters.
func (s *Spool) settle(ctx context.Context, events []*waiting) error {
	if len(events) == 0 {
		return nil
	}
	s.file.Lock()
	defer s.file.Unlock()
	err := s.update(func(tx *bolt.Tx) error {
		for _, w := range events {
			if w.err != nil {
				if err := s.bury(tx, w); err != nil {
					return err
				}
			}
			if err := tx.Bucket(queuedBucket).Delete(w.key); err != nil {
				return err
			}
		}
		return addCount(tx, queuedBucket, -len(events))
	})
	if err != nil {
		return fmt.Errorf("remove moved callbacks: %w", err)
	}
	for _, w := range events {
		s.mu.Lock()
		delete(s.ids, w.record.ID)
		s.mu.Unlock()
		if w.err != nil {
			s.config.Logger.WarnContext(ctx, "spooled callback is a dead letter: receiver spool list shows it",
				slog.String("event_id", w.record.ID.String()), slog.String("error", w.err.Error()))
		}
	}
	s.shrink()
	return nil
}

// bury adds an event to the dead letters.
func (s *Spool) bury(tx *bolt.Tx, w *waiting) error {
	r := *w.record
	r.dead = &deadLetter{At: s.config.Now().UTC(), Reason: w.err.Error()}
	frame, err := encode(&r)
	if err != nil {
		return err
	}
	return putDead(tx, r.ID, frame)
}
