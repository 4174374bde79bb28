package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	bolt "go.etcd.io/bbolt"

	"upcall/internal/event"
	"upcall/internal/kept"
)

// A waiting event.
type waiting struct {
	id         uuid.UUID
	key, frame []byte
	record     *kept.Record // nil if the frame cannot be decoded
	err        error        // from decoding or recording it
}

// tries are the attempts to move an event that failed.
type tries struct {
	next    time.Time // not before then
	refused int       // attempts that failed with event.ErrDeadLetter
}

// tryAgain is the pause before the next attempt to move an event that could not be moved.
// Others have their turn meanwhile.
const tryAgain = 300 * time.Millisecond

// Move calls record for the oldest events, up to most of them, all at once so that they can
// share a commit. It removes those that are recorded and returns their number.
//
// An event that kept.Judge calls dead becomes a dead letter, and Move logs that. So does a record that cannot
// be decoded, though it is intact. An event that cannot be recorded now stays where it is, and Move returns record's error. Move passes it
// over for a moment, so that it does not hold up the others. If an event is recorded but not removed, because
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
		if w.record != nil {
			group.Go(func() { _, w.err = record(ctx, &w.record.Event) })
		}
	}
	group.Wait()
	s.file.Lock()
	defer s.file.Unlock()
	var settled []*waiting
	for _, w := range events {
		t := s.tries[w.id]
		verdict := kept.Dead // it cannot be decoded
		if w.record != nil {
			verdict = kept.Judge(w.err, t.refused)
		}
		switch {
		case verdict == kept.Moved:
			moved++
		case w.record == nil:
		case ctx.Err() != nil:
			err = fmt.Errorf("move spooled callbacks: %w", w.err)
			continue
		case verdict == kept.Refused, verdict == kept.Waits:
			if verdict == kept.Refused {
				t.refused++
			} else {
				err = fmt.Errorf("move spooled callbacks: %w", w.err)
			}
			t.next = time.Now().Add(tryAgain)
			s.tries[w.id] = t
			continue
		}
		settled = append(settled, w)
	}
	return moved, errors.Join(err, s.settle(ctx, settled))
}

// oldest returns the events that have waited longest, except those that were just tried.
func (s *Spool) oldest(most int) ([]*waiting, error) {
	s.file.Lock()
	defer s.file.Unlock()
	now := time.Now()
	var events []*waiting
	err := s.db.View(func(tx *bolt.Tx) error {
		cursor := tx.Bucket(queuedBucket).Cursor()
		for key, frame := cursor.First(); key != nil && len(events) < most; key, frame = cursor.Next() {
			h, err := kept.Check(frame)
			if err != nil {
				return fmt.Errorf("%w: %w: restart the receiver to recover", ErrDamaged, err)
			}
			if now.Before(s.tries[h.ID].next) {
				continue
			}
			w := &waiting{id: h.ID, key: bytes.Clone(key), frame: bytes.Clone(frame)}
			w.record, w.err = kept.Decode(w.frame)
			events = append(events, w)
		}
		return nil
	})
	return events, err
}

// settle removes events from the queue, with the file locked. Those with an error become dead letters.
func (s *Spool) settle(ctx context.Context, events []*waiting) error {
	if len(events) == 0 {
		return nil
	}
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
		delete(s.tries, w.id)
		s.mu.Lock()
		delete(s.ids, w.id)
		if w.err != nil {
			s.dead[w.id] = struct{}{}
		}
		s.mu.Unlock()
		if w.err != nil {
			s.config.Logger.WarnContext(ctx, "spooled callback is a dead letter: receiver spool list shows it",
				slog.String("event_id", w.id.String()), slog.String("error", w.err.Error()))
		}
	}
	s.shrink()
	return nil
}

// bury adds an event to the dead letters. One that cannot be decoded or encoded stays as it
// is: it must not block the others.
func (s *Spool) bury(tx *bolt.Tx, w *waiting) error {
	frame := kept.Flagged(w.frame, true)
	if w.record != nil {
		r := *w.record
		s.erase(&r.Event) // it was read before that was asked for, perhaps
		r.Dead = &kept.DeadLetter{At: s.config.Now().UTC(), Reason: w.err.Error()}
		if encoded, err := kept.Encode(&r); err == nil {
			frame = encoded
		}
	}
	return putDead(tx, w.id, frame)
}
