package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

	"upcall/internal/event"
)

// A waiting event and its place.
type waiting struct {
	key    []byte
	record *record
	err    error // of record
}

// Move has record take the oldest events, at most that many, all at once, so that they
// can share a commit, and takes out what is recorded. It returns how many are.
//
// What can never be recorded becomes a dead letter, in the spool still, and the log says
// so. So does what is of a month that is just being dropped: that can last as long as
// someone reads the month, and the others must not wait for it. What cannot be recorded
// now stays where it is; the error is record's then. An event that was recorded and not
// taken out, because the process ended or the disk failed, is recorded again the next
// time, which is a duplicate.
func (s *Spool) Move(
	ctx context.Context, record func(context.Context, *event.Event) (duplicate bool, err error), most int,
) (moved int, err error) {
	events, err := s.oldest(most)
	if err != nil {
		return 0, err
	}
	var group sync.WaitGroup
	for _, w := range events {
		group.Go(func() {
			_, w.err = record(ctx, &w.record.Event)
		})
	}
	group.Wait()
	var done, dead []*waiting
	for _, w := range events {
		switch {
		case w.err == nil:
			done = append(done, w)
		case ctx.Err() != nil, errors.Is(w.err, event.ErrUnavailable) && !errors.Is(w.err, event.ErrExpiring):
			err = fmt.Errorf("move spooled callbacks: %w", w.err)
		default:
			dead = append(dead, w)
		}
	}
	return len(done), errors.Join(err, s.settle(ctx, done, dead))
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
				return fmt.Errorf("%w: %w: start the receiver again to have it fixed", ErrDamaged, err)
			}
			events = append(events, &waiting{key: bytes.Clone(key), record: r})
		}
		return nil
	})
	return events, err
}

// settle takes out what is done, and moves what is dead to the dead letters.
func (s *Spool) settle(ctx context.Context, done, dead []*waiting) error {
	if len(done)+len(dead) == 0 {
		return nil
	}
	s.file.Lock()
	defer s.file.Unlock()
	var oldest time.Time
	var newlyDead int
	err := s.update(func(tx *bolt.Tx) error {
		queued := tx.Bucket(queuedBucket)
		for _, w := range done {
			if err := queued.Delete(w.key); err != nil {
				return err
			}
		}
		newlyDead = 0
		for _, w := range dead {
			isNew, err := s.bury(tx, w)
			if err != nil {
				return err
			}
			if isNew {
				newlyDead++
			}
		}
		if err := addCount(tx, queuedBucket, -len(done)-len(dead)); err != nil {
			return err
		}
		if _, frame := queued.Cursor().First(); frame != nil {
			if h, err := check(frame); err == nil {
				oldest = h.receivedAt
			}
		}
		return addCount(tx, deadBucket, newlyDead)
	})
	if err != nil {
		return fmt.Errorf("take moved callbacks out: %w", err)
	}
	s.mu.Lock()
	for _, w := range done {
		delete(s.ids, w.record.ID)
	}
	for _, w := range dead {
		delete(s.ids, w.record.ID)
	}
	s.stats.Queued -= len(done) + len(dead)
	s.stats.DeadLetters += newlyDead
	s.stats.Oldest = oldest
	s.mu.Unlock()
	for _, w := range dead {
		s.config.Logger.WarnContext(ctx, "spooled callback is a dead letter: receiver spool list shows it",
			slog.String("event_id", w.record.ID.String()), slog.String("error", w.err.Error()))
	}
	s.shrink()
	return nil
}

// bury moves an event to the dead letters. It is new there unless it was one before.
func (s *Spool) bury(tx *bolt.Tx, w *waiting) (isNew bool, err error) {
	r := *w.record
	r.dead = &deadLetter{At: s.config.Now().UTC(), Reason: w.err.Error()}
	frame, err := encode(&r)
	if err != nil {
		return false, err
	}
	dead := tx.Bucket(deadBucket)
	isNew = dead.Get(r.ID[:]) == nil
	if err := dead.Put(r.ID[:], frame); err != nil {
		return false, err
	}
	return isNew, tx.Bucket(queuedBucket).Delete(w.key)
}
