package spool

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"upcall/internal/kept"

	"github.com/google/uuid"
	bolt "go.etcd.io/bbolt"
)

// build makes a new file from what fill adds to it, replaces the old file with it, and uses
// it from then on. After an error nothing has changed.
//
// The rename cannot be undone: what goes into the old file afterwards would have no name.
// If the fsync of the rename fails, the spool accepts nothing more, as after any failed
// fsync: after a power failure, the machine may find the old file.
func (s *Spool) build(fill func(*builder) error) error {
	path := s.path(newFileName)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	db, err := openFile(path)
	if err != nil {
		return fmt.Errorf("make file: %w", err)
	}
	b := &builder{db: db, known: newKnown()}
	err = b.begin()
	if err == nil {
		err = fill(b)
	}
	if err == nil {
		err = b.end()
	}
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
	s.use(db, b.known)
	if err := s.dir.Sync(); err != nil {
		_ = s.fail(err) // every put returns it
	}
	return nil
}

// use makes a file, with these callbacks in it, the spool's own.
func (s *Spool) use(db *bolt.DB, in known) {
	s.db = db
	s.mu.Lock()
	s.known = in
	s.mu.Unlock()
	s.measure()
}

// known are the IDs of the callbacks in a file. One that arrives again while it is a dead
// letter is both.
type known struct{ ids, dead map[uuid.UUID]struct{} }

func newKnown() known { return known{make(map[uuid.UUID]struct{}), make(map[uuid.UUID]struct{})} }

func (k known) add(h kept.Head) {
	if h.Dead {
		k.dead[h.ID] = struct{}{}
	} else {
		k.ids[h.ID] = struct{}{}
	}
}

// A builder fills a new file.
type builder struct {
	db *bolt.DB
	known
	batch []framed // added, but not yet in the file
}

type framed struct {
	kept.Head
	frame []byte
}

func (b *builder) begin() error {
	b.db.NoSync = true // until end
	return b.db.Update(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{queuedBucket, deadBucket, countsBucket} {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		return nil
	})
}

// add adds a record, unless one with its ID waits. Records that wait must be added in order.
func (b *builder) add(h kept.Head, frame []byte) error {
	if _, there := b.ids[h.ID]; there {
		return nil
	}
	b.known.add(h)
	b.batch = append(b.batch, framed{h, bytes.Clone(frame)})
	if len(b.batch) < buildBatch {
		return nil
	}
	return b.flush()
}

func (b *builder) flush() error {
	err := b.db.Update(func(tx *bolt.Tx) error {
		for _, r := range b.batch {
			var err error
			if r.Dead {
				err = putDead(tx, r.ID, r.frame)
			} else {
				err = appendQueued(tx, r.frame)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	b.batch = b.batch[:0]
	return err
}

// end completes the file and fsyncs it.
func (b *builder) end() error {
	if err := b.flush(); err != nil {
		return err
	}
	b.db.NoSync = false
	return b.db.Sync()
}
