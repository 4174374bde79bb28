package spool

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"

	bolt "go.etcd.io/bbolt"

	"upcall/internal/event"
	"upcall/internal/kept"
)

const (
	// rewriteBelow is how much of callbacks is copied into a new file at once. Others wait meanwhile.
	rewriteBelow = 32 << 20
	// eraseAtOnce is how many records are looked at in one transaction of a larger file.
	eraseAtOnce = 500
)

// Erase erases what the requests, which are all that there are, ask for: from the callbacks in the spool, dead letters included,
// and from those that come in later but were received before. Then nothing of it is left in the file,
// which also holds remains of callbacks that were moved. A spool of more than 32 MiB gets its new file
// when fewer are left. It returns how many callbacks it has changed.
//
// It reaches neither damaged files that were set aside nor records of other versions.
func (s *Spool) Erase(ctx context.Context, requests []event.Erasure) (erased int, err error) {
	s.changing.Lock() // so that no other request of the same kind comes in between
	defer s.changing.Unlock()
	s.file.Lock()
	defer s.file.Unlock()
	// The latest first: most callbacks are younger than that, and are compared with it alone.
	sorted := slices.SortedStableFunc(slices.Values(requests), func(a, b event.Erasure) int { return b.Before.Compare(a.Before) })
	s.mu.Lock()
	s.erasures = sorted
	s.mu.Unlock()
	s.unclean = true
	if s.Stats().Bytes <= s.rewriteBelow {
		erased, err = s.rewrite()
		if err == nil {
			return erased, nil
		}
		s.config.Logger.WarnContext(ctx, "spool file could not be rewritten; erasing in it, which leaves remains",
			slog.String("error", err.Error()))
	}
	for _, bucket := range [][]byte{queuedBucket, deadBucket} {
		n, err := s.eraseIn(ctx, bucket)
		if erased += n; err != nil {
			return erased, fmt.Errorf("erase spooled callbacks: %w", err)
		}
	}
	return erased, nil
}

// erase erases what was asked for from an event that this process has for itself, and reports whether
// it did.
func (s *Spool) erase(e *event.Event) bool {
	s.mu.Lock()
	erasures := s.erasures
	s.mu.Unlock()
	for _, x := range erasures {
		if !e.ReceivedAt.Before(x.Before) {
			return false
		}
		if x.Matches(e) {
			e.Erase()
			return true
		}
	}
	return false
}

// erasedFrame returns the frame without what was to be erased, and whether it has changed.
func (s *Spool) erasedFrame(frame []byte) ([]byte, bool) {
	r, err := kept.Decode(frame)
	if err != nil {
		s.config.Logger.Warn("spooled callback of another version may hold what was to be erased", slog.String("error", err.Error()))
		return frame, false
	}
	if !s.erase(&r.Event) {
		return frame, false
	}
	without, err := kept.Encode(r)
	if err != nil { // cannot happen: it has become shorter
		return frame, false
	}
	return without, true
}

// rewrite makes a new file of the callbacks without what was to be erased, with the file locked.
func (s *Spool) rewrite() (erased int, err error) {
	err = s.build(func(b *builder) error {
		return s.db.View(func(tx *bolt.Tx) error {
			for _, name := range [][]byte{queuedBucket, deadBucket} {
				err := readBucket(tx, name, func(h kept.Head, frame []byte) error {
					without, changed := s.erasedFrame(frame)
					if changed {
						erased++
					}
					return b.add(h, without)
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
	})
	if err == nil {
		s.unclean = false
	}
	return erased, err
}

// eraseIn erases in the file that there is, in steps between which others have the file. The caller
// has it locked.
func (s *Spool) eraseIn(ctx context.Context, bucket []byte) (erased int, err error) {
	type change struct{ key, frame []byte }
	for last := []byte{}; ; {
		var changes []change
		n := 0
		err := s.db.View(func(tx *bolt.Tx) error {
			cursor := tx.Bucket(bucket).Cursor()
			key, frame := cursor.Seek(last)
			if bytes.Equal(key, last) {
				key, frame = cursor.Next()
			}
			for ; key != nil && n < eraseAtOnce; key, frame = cursor.Next() {
				n++
				last = bytes.Clone(key)
				if without, changed := s.erasedFrame(frame); changed {
					changes = append(changes, change{last, without})
				}
			}
			return nil
		})
		if err == nil && len(changes) > 0 {
			err = s.update(func(tx *bolt.Tx) error {
				for _, c := range changes {
					if err := tx.Bucket(bucket).Put(c.key, c.frame); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err != nil || n == 0 {
			return erased, err
		}
		erased += len(changes)
		if ctx.Err() != nil {
			return erased, context.Cause(ctx)
		}
		s.file.Unlock()
		s.file.Lock()
	}
}
