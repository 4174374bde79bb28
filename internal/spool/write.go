package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"syscall"
	"time"

	"github.com/google/uuid"
	bolt "go.etcd.io/bbolt"

	"upcall/internal/event"
	"upcall/internal/kept"
)

// A put is an event and the channel to the caller that waits for it.
type put struct {
	id     uuid.UUID
	record kept.Record
	frame  []byte // of the record
	answer chan answer
}

type answer struct {
	duplicate bool
	err       error
}

func (s *Spool) enqueue(p *put) error {
	s.closing.RLock()
	defer s.closing.RUnlock()
	if s.closed {
		return fmt.Errorf("%w: it is closed", event.ErrSpoolUnwritable)
	}
	select {
	case s.queue <- p:
		return nil
	default:
		return fmt.Errorf("%w: too many callbacks wait for the disk", event.ErrSpoolFull)
	}
}

const (
	maxQueue = 4096 // callbacks that wait for the disk
	maxBatch = 1024 // callbacks in one fsync
)

// write writes all events that wait in one transaction, so that they share its fsync, and
// answers each. Meanwhile the next ones gather, and do not wait for a timer, as they would
// with bbolt's own Batch.
func (s *Spool) write() {
	batch := make([]*put, 0, maxBatch)
	for first := range s.queue {
		batch = append(batch[:0], first)
		for len(batch) < maxBatch && len(s.queue) > 0 { // nothing else receives from queue
			batch = append(batch, <-s.queue)
		}
		for i, a := range s.commit(batch) {
			batch[i].answer <- a
		}
		clear(batch) // so that it does not keep answered events in memory
	}
}

// commit writes the events of a batch and returns the answer to each.
func (s *Spool) commit(batch []*put) []answer {
	s.file.Lock()
	defer s.file.Unlock()
	answers := make([]answer, len(batch))
	first := make(map[uuid.UUID]int, len(batch)) // index of the event that is written
	var fresh []*put
	room, full := s.room()
	for i, p := range batch {
		if s.erase(&p.record.Event) { // received before that was asked for
			if frame, err := kept.Encode(&p.record); err == nil { // it was longer before
				p.frame = frame
			}
		}
		cost := int64(len(p.frame)) + recordOverhead
		_, twice := first[p.id]
		switch {
		case s.Has(p.id):
			answers[i].duplicate = true
		case twice: // answered below, with the first
		case cost > room:
			answers[i].err = full
		default:
			room -= cost
			first[p.id] = i
			fresh = append(fresh, p)
		}
	}
	if len(fresh) == 0 {
		return answers
	}
	err := s.update(func(tx *bolt.Tx) error {
		for _, p := range fresh {
			if err := appendQueued(tx, p.frame); err != nil {
				return err
			}
		}
		return nil
	})
	for i, p := range batch {
		if j, ok := first[p.id]; ok {
			answers[i] = answer{duplicate: err == nil && i != j, err: err}
		}
	}
	if err == nil {
		s.mu.Lock()
		for _, p := range fresh {
			s.ids[p.id] = struct{}{}
		}
		s.mu.Unlock()
	}
	return answers
}

// recordOverhead is about how many bytes bbolt adds to a record.
const recordOverhead = 32

// room returns how many bytes may be added, and the error for a larger record.
func (s *Spool) room() (int64, error) {
	used := s.Stats().Bytes
	room, full := s.config.MaxBytes-used, fmt.Errorf("%w: it may take %d bytes", event.ErrSpoolFull, s.config.MaxBytes)
	if s.config.MinFreeBytes < 0 {
		return room, full
	}
	var disk syscall.Statfs_t
	if err := syscall.Statfs(s.config.Dir, &disk); err != nil {
		return 0, fmt.Errorf("%w: free space is unknown: %w", event.ErrSpoolUnwritable, err)
	}
	if free := int64(disk.Bavail)*int64(disk.Bsize) - s.config.MinFreeBytes; free < room {
		return free, fmt.Errorf("%w: %d bytes of the disk must stay free", event.ErrSpoolFull, s.config.MinFreeBytes)
	}
	return room, full
}

// retryAfter is the pause after a failed write. In each attempt bbolt reads the whole file.
const retryAfter = time.Second

// update runs work in a transaction, which is on disk when update returns without an error.
func (s *Spool) update(work func(*bolt.Tx) error) error {
	if err := s.failure(); err != nil {
		return err
	}
	tx, err := s.db.Begin(true)
	if err != nil {
		return fmt.Errorf("%w: %w", event.ErrSpoolUnwritable, err)
	}
	if err := work(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	if err := tx.Commit(); err != nil {
		return s.fail(err)
	}
	s.measure()
	return nil
}

// fail notes why a commit failed and when to try again, if ever.
func (s *Spool) fail(err error) error {
	failed := fmt.Errorf("%w: %w", event.ErrSpoolUnwritable, err)
	retryAt := s.config.Now().Add(retryAfter)
	if path, ok := errors.AsType[*fs.PathError](err); !ok || path.Op != "write" {
		// Not a write but probably an fsync has failed. The system may now treat pages as
		// written that are not, and the next fsync would succeed without them (A. Rebello
		// et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020). The
		// spool therefore accepts nothing more.
		retryAt = time.Time{}
		s.config.Logger.Error("spool takes no more callbacks: check its disk, then restart the receiver",
			slog.String("dir", s.config.Dir), slog.String("error", err.Error()))
	}
	s.mu.Lock()
	s.failed, s.retryAt = failed, retryAt
	s.mu.Unlock()
	return failed
}

// failure returns the error that currently prevents writing, or nil.
func (s *Spool) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil && !s.retryAt.IsZero() && !s.config.Now().Before(s.retryAt) {
		s.failed = nil
	}
	return s.failed
}

// Ready returns the error with which the spool would refuse a callback now, or nil.
func (s *Spool) Ready() error {
	if err := s.failure(); err != nil {
		return err
	}
	if room, full := s.room(); room <= 0 {
		return full
	}
	return nil
}

// measure notes what the file holds.
func (s *Spool) measure() {
	var now Stats
	_ = s.db.View(func(tx *bolt.Tx) error { // the function returns no error
		now.Queued, now.DeadLetters, now.Bytes = count(tx, queuedBucket), count(tx, deadBucket), tx.Size()
		if _, frame := tx.Bucket(queuedBucket).Cursor().First(); frame != nil {
			if h, err := kept.Check(frame); err == nil {
				now.Oldest = h.ReceivedAt
			}
		}
		return nil
	})
	free := s.db.Stats()
	now.Bytes -= int64(free.FreePageN+free.PendingPageN) * pageSize
	s.mu.Lock()
	now.Damaged = s.stats.Damaged
	s.stats = now
	s.mu.Unlock()
}

// The buckets of a file. counts has the number of records of each other bucket under its
// name, so that lost records are noticed.
var (
	queuedBucket = []byte("queued")   // by number of arrival, 8 bytes
	deadBucket   = []byte("rejected") // by ID; the name is part of the file format
	countsBucket = []byte("counts")
)

// appendQueued adds a record behind all others. The frame must not change before the
// transaction ends.
func appendQueued(tx *bolt.Tx, frame []byte) error {
	bucket := tx.Bucket(queuedBucket)
	bucket.FillPercent = 1 // because records are added only at the end
	n, err := bucket.NextSequence()
	if err != nil {
		return err
	}
	if err := bucket.Put(binary.BigEndian.AppendUint64(nil, n), frame); err != nil {
		return err
	}
	return addCount(tx, queuedBucket, 1)
}

// putDead adds a dead letter, or replaces the one with the same ID. The frame must not
// change before the transaction ends.
func putDead(tx *bolt.Tx, id uuid.UUID, frame []byte) error {
	dead := tx.Bucket(deadBucket)
	if dead.Get(id[:]) == nil {
		if err := addCount(tx, deadBucket, 1); err != nil {
			return err
		}
	}
	return dead.Put(id[:], frame)
}

func addCount(tx *bolt.Tx, bucket []byte, n int) error {
	b := tx.Bucket(countsBucket)
	return b.Put(bucket, binary.BigEndian.AppendUint64(nil, uint64(count(tx, bucket)+n)))
}

func count(tx *bolt.Tx, bucket []byte) int {
	value := tx.Bucket(countsBucket).Get(bucket)
	if len(value) != 8 {
		return 0
	}
	return int(binary.BigEndian.Uint64(value))
}
