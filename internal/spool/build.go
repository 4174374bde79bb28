package spool

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/google/uuid"
	bolt "go.etcd.io/bbolt"
)

// build makes a new file of what fill adds to it, puts it in the place of the old one,
// and works with it from then on. After an error nothing has changed.
//
// From the rename on there is no way back: what went into the old file would have no name.
// If the rename does not get to the disk, that is the end of the spool's promises, as with
// any fsync that failed: a machine that loses power may still find the old file.
func (s *Spool) build(fill func(*builder) error) error {
	path := s.path(newFileName)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	db, err := openFile(path)
	if err != nil {
		return fmt.Errorf("make file: %w", err)
	}
	b := &builder{db: db, ids: make(map[uuid.UUID]struct{})}
	err = b.begin()
	if err == nil {
		err = fill(b)
	}
	err = errors.Join(err, b.end())
	if err == nil {
		err = os.Rename(path, s.path(fileName))
	}
	if err != nil {
		return errors.Join(err, db.Close(), os.Remove(path))
	}
	if s.db != nil {
		if err := s.db.Close(); err != nil {
			s.config.Logger.Warn("close replaced spool file", slog.String("error", err.Error()))
		}
	}
	s.use(db, b)
	if err := s.dir.Sync(); err != nil {
		_ = s.fail(err) // every put returns it
	}
	return nil
}

// use works with a file from now on, and with what is known of it.
func (s *Spool) use(db *bolt.DB, b *builder) {
	s.db = db
	s.mu.Lock()
	s.ids = b.ids
	s.stats.Queued, s.stats.DeadLetters, s.stats.Oldest = len(b.ids), b.dead, b.oldest
	s.mu.Unlock()
	s.measure()
}

// A builder fills a new file and counts what is in it.
type builder struct {
	db      *bolt.DB // nil: only count
	tx      *bolt.Tx
	pending int
	ids     map[uuid.UUID]struct{} // of the queued
	oldest  time.Time              // of the queued
	dead    int
}

func (b *builder) begin() error {
	b.db.NoSync = true // end syncs
	return b.db.Update(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{queuedBucket, deadBucket, countsBucket} {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		return nil
	})
}

// add adds a record, unless it is there. Those that wait are to be added in order.
func (b *builder) add(h head, frame []byte) error {
	if _, there := b.ids[h.id]; there {
		return nil
	}
	if h.dead {
		b.dead++
	} else {
		if len(b.ids) == 0 {
			b.oldest = h.receivedAt
		}
		b.ids[h.id] = struct{}{}
	}
	if b.db == nil {
		return nil
	}
	if err := b.put(h, bytes.Clone(frame)); err != nil { // bbolt keeps the slice until it commits
		return err
	}
	if b.pending++; b.pending < buildBatch {
		return nil
	}
	b.pending = 0
	tx := b.tx
	b.tx = nil
	return tx.Commit()
}

func (b *builder) put(h head, frame []byte) error {
	if b.tx == nil {
		var err error
		if b.tx, err = b.db.Begin(true); err != nil {
			return err
		}
	}
	if h.dead {
		bucket := b.tx.Bucket(deadBucket)
		if bucket.Get(h.id[:]) != nil {
			b.dead--
		}
		return bucket.Put(h.id[:], frame)
	}
	return appendQueued(b.tx, frame)
}

// end completes the file and brings it to the disk.
func (b *builder) end() error {
	if b.tx != nil {
		if err := b.tx.Commit(); err != nil {
			return err
		}
	}
	err := b.db.Update(func(tx *bolt.Tx) error {
		return errors.Join(addCount(tx, queuedBucket, len(b.ids)), addCount(tx, deadBucket, b.dead))
	})
	if err != nil {
		return err
	}
	b.db.NoSync = false
	return b.db.Sync()
}
