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
)

// A put is an event and the caller that waits for it.
type put struct {
	id         uuid.UUID
	receivedAt time.Time
	frame      []byte
	answer     chan answer
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

// write writes all events that wait in one transaction, so that they share its fsync,
// and answers each. While it writes, the next ones gather: none waits for a timer, as
// with bbolt's own Batch.
func (s *Spool) write() {
	batch := make([]*put, 0, s.config.MaxBatch)
	for first := range s.queue {
		batch = append(batch[:0], first)
	gather:
		for len(batch) < s.config.MaxBatch {
			select {
			case p, ok := <-s.queue:
				if !ok {
					break gather
				}
				batch = append(batch, p)
			default:
				break gather
			}
		}
		for i, a := range s.commit(batch) {
			batch[i].answer <- a
		}
		clear(batch) // the answered are not kept alive
	}
}

// commit returns an answer for each.
func (s *Spool) commit(batch []*put) []answer {
	s.file.Lock()
	defer s.file.Unlock()
	answers := make([]answer, len(batch))
	first := make(map[uuid.UUID]int, len(batch)) // which of the batch is to be written
	var fresh []*put
	room, full := s.room()
	for i, p := range batch {
		cost := int64(len(p.frame)) + recordOverhead
		_, twice := first[p.id]
		switch {
		case s.Has(p.id):
			answers[i].duplicate = true
		case twice: // answered below, along with the first
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
	err := s.update(func(tx *bolt.Tx) error { return putQueued(tx, fresh) })
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
		s.stats.Queued += len(fresh)
		if s.stats.Oldest.IsZero() {
			s.stats.Oldest = fresh[0].receivedAt
		}
		s.mu.Unlock()
	}
	return answers
}

// recordOverhead is about what bbolt adds to a record.
const recordOverhead = 32

// room returns how many bytes may be added, and the error for what is more.
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
		return free, fmt.Errorf("%w: %d bytes of the disk are to stay free", event.ErrSpoolFull, s.config.MinFreeBytes)
	}
	return room, full
}

// retryAfter is the pause after a failed write: each attempt makes bbolt walk over the whole
// file.
const retryAfter = time.Second

// update works in a transaction that is on disk when it returns, and counts what is used.
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

// fail notes why a commit failed, and whether to try again.
func (s *Spool) fail(err error) error {
	failed := fmt.Errorf("%w: %w", event.ErrSpoolUnwritable, err)
	retryAt := s.config.Now().Add(retryAfter)
	if path, ok := errors.AsType[*fs.PathError](err); !ok || path.Op != "write" {
		// It was no write that failed but, for all we know, an fsync. After that the
		// system may take pages for written that are not, and the next fsync succeeds
		// without them (A. Rebello et al., "Can Applications Recover from fsync
		// Failures?", USENIX ATC 2020). So nothing more is promised here.
		retryAt = time.Time{}
		s.config.Logger.Error("spool takes no more callbacks: see to its disk, then start the receiver again",
			slog.String("dir", s.config.Dir), slog.String("error", err.Error()))
	}
	s.mu.Lock()
	s.failed, s.retryAt = failed, retryAt
	s.mu.Unlock()
	return failed
}

// failure returns why nothing is written now, if so.
func (s *Spool) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil && !s.retryAt.IsZero() && !s.config.Now().Before(s.retryAt) {
		s.failed = nil
	}
	return s.failed
}

// Ready tells why the spool would take no callback now, if so.
func (s *Spool) Ready() error {
	if err := s.failure(); err != nil {
		return err
	}
	if room, full := s.room(); room <= 0 {
		return full
	}
	return nil
}

// measure counts what is used of the file.
func (s *Spool) measure() {
	var size int64
	_ = s.db.View(func(tx *bolt.Tx) error { size = tx.Size(); return nil }) // the function returns no error
	stats := s.db.Stats()
	used := size - int64(stats.FreePageN+stats.PendingPageN)*pageSize
	s.mu.Lock()
	s.stats.Bytes = used
	s.mu.Unlock()
}

// The buckets of a file. Each has, under its own name, the number of its records in
// counts, so that records that vanish are missed.
var (
	queuedBucket = []byte("queued")   // by number of arrival, 8 bytes
	deadBucket   = []byte("rejected") // by ID; files have had that name from the start
	countsBucket = []byte("counts")
)

func putQueued(tx *bolt.Tx, fresh []*put) error {
	for _, p := range fresh {
		if err := appendQueued(tx, p.frame); err != nil {
			return err
		}
	}
	return addCount(tx, queuedBucket, len(fresh))
}

// appendQueued adds a record behind all others. The frame must not be changed before the
// transaction ends.
func appendQueued(tx *bolt.Tx, frame []byte) error {
	bucket := tx.Bucket(queuedBucket)
	bucket.FillPercent = 1 // only ever added to at the end
	n, err := bucket.NextSequence()
	if err != nil {
		return err
	}
	return bucket.Put(binary.BigEndian.AppendUint64(nil, n), frame)
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
