// Package spool is the local queue for callbacks while PostgreSQL does not take them. Each
// callback is on disk, fsynced, before it is acknowledged, and moves to PostgreSQL later.
//
// A directory belongs to one process at a time, which holds its file lock:
//
//	lock                              held by the owner
//	control                           a socket on which a receiver is told what to do with dead letters
//	spool.db                          the callbacks, in a bbolt file
//	spool.db.damaged-20060102T150405Z a damaged file that was set aside
//	….unread                          the same, until its intact records are in spool.db
//
// spool.db holds the callbacks that wait, in the order of their arrival. Apart from them it
// holds the dead letters, which PostgreSQL could not hold when their turn came. Each record
// is framed and has its own checksum, so that intact records can be found in a damaged file.
//
// The spool holds a callback once, by its ID, and PostgreSQL keeps IDs, too. This makes it
// safe to repeat an interrupted step: a callback that went to both, or that was moved but
// not yet removed, ends as one row.
package spool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/google/uuid"
	bolt "go.etcd.io/bbolt"

	"upcall/internal/event"
	"upcall/internal/kept"
)

var (
	// ErrInUse means that another process has the directory.
	ErrInUse = errors.New("spool is in use by another process")
	// ErrNoDeadLetter means that no dead letter has the ID.
	ErrNoDeadLetter = errors.New("no such dead letter")
	// ErrDamaged means that the disk does not return what was written.
	ErrDamaged = errors.New("spool is damaged")
)

// The defaults of [Config].
const (
	DefaultMaxBytes     = 1 << 30
	DefaultMinFreeBytes = 256 << 20
)

// Config says where a spool is and how large it may become.
type Config struct {
	// Dir is created if it is missing. It must be on a local disk. Required.
	Dir string

	// MaxBytes limits the disk space of the callbacks; default DefaultMaxBytes. The file
	// may be a little larger.
	MaxBytes int64

	// MinFreeBytes is how much of the disk stays free; default DefaultMinFreeBytes. A
	// negative number means no limit.
	MinFreeBytes int64

	// LockTimeout is how long to wait for a process that is about to end; default 1 s.
	LockTimeout time.Duration

	// Logger logs damage and dead letters. Required.
	Logger *slog.Logger

	// Now is the clock. Default time.Now.
	Now func() time.Time
}

func (c Config) withDefaults() Config {
	c.MaxBytes = cmp.Or(c.MaxBytes, DefaultMaxBytes)
	c.MinFreeBytes = cmp.Or(c.MinFreeBytes, DefaultMinFreeBytes)
	c.LockTimeout = cmp.Or(c.LockTimeout, time.Second)
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

func (c Config) validate() error {
	switch {
	case c.Dir == "" || c.Logger == nil:
		return errors.New("Dir and Logger are required")
	case c.MaxBytes < 1, c.LockTimeout < 0:
		return errors.New("MaxBytes and LockTimeout must be positive")
	}
	return nil
}

// Stats is what a spool holds.
type Stats struct {
	Queued      int       // callbacks that wait for PostgreSQL
	Oldest      time.Time // when the first of them arrived; zero if none waits
	Bytes       int64     // the disk space of all callbacks
	DeadLetters int       // callbacks that PostgreSQL cannot hold; they stay until Retry or Discard
	Damaged     int       // damaged files in the directory that were set aside
}

// A Spool is an open spool. Its methods may be called concurrently.
type Spool struct {
	config Config
	lock   *os.File
	dir    *os.File // the directory, to fsync a rename
	queue  chan *put
	writer sync.WaitGroup

	closing sync.RWMutex // held for reading by those who send to queue
	closed  bool

	file sync.Mutex // held while db is used or replaced
	db   *bolt.DB

	changing sync.Mutex // held by who takes dead letters away

	tries   map[uuid.UUID]tries // of the waiting events that could not be moved; guarded by file
	unclean bool                // the file may hold remains of what was to be erased; guarded by file

	rewriteBelow int64

	mu sync.Mutex // guards the fields below, briefly
	known
	stats Stats
	// What was to be erased, the latest request first. It is replaced, not changed.
	erasures []event.Erasure
	failed   error     // why the last commit failed, if it did
	retryAt  time.Time // when to try again after that; zero means never
}

// Open opens the spool of a directory, with what an earlier process left there, and locks it
// for this process. It sets a damaged file aside, logs that, and recovers the intact
// records. If it cannot, the next process does. An error wraps [ErrInUse], or says why the
// directory cannot be used at all.
func Open(ctx context.Context, config Config) (*Spool, error) {
	config = config.withDefaults()
	if err := config.validate(); err != nil {
		return nil, fmt.Errorf("spool config: %w", err)
	}
	if err := makeDir(config.Dir); err != nil {
		return nil, fmt.Errorf("make spool directory: %w", err)
	}
	lock, err := acquireLock(ctx, config.Dir, config.LockTimeout)
	if err != nil {
		return nil, err
	}
	dir, err := os.Open(config.Dir)
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("open spool directory: %w", err)
	}
	s := &Spool{config: config, lock: lock, dir: dir, queue: make(chan *put, maxQueue), tries: make(map[uuid.UUID]tries),
		rewriteBelow: rewriteBelow}
	if err := s.load(ctx); err != nil {
		dir.Close()
		lock.Close()
		return nil, fmt.Errorf("open spool %s: %w", config.Dir, err)
	}
	s.writer.Go(s.write)
	return s, nil
}

// Has reports whether the callback with this ID waits in the spool.
func (s *Spool) Has(id uuid.UUID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, there := s.ids[id]
	return there
}

// Stats returns what the spool holds. It reads nothing from the disk.
func (s *Spool) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// Depth returns how many callbacks wait for PostgreSQL.
func (s *Spool) Depth() int { return s.Stats().Queued }

// Put returns when the event is on disk. duplicate reports whether an event with the same ID
// was already in the spool.
//
// An error wraps [event.ErrSpoolFull], [event.ErrSpoolUnwritable], or [event.ErrUnstorable]
// for an event that PostgreSQL could not hold. When ctx ends, the event may still be
// written to the disk.
func (s *Spool) Put(ctx context.Context, e *event.Event) (duplicate bool, err error) {
	p := &put{id: e.ID, record: kept.Record{Event: *e}, answer: make(chan answer, 1)}
	if p.frame, err = kept.Encode(&p.record); err != nil {
		return false, err
	}
	if err := s.enqueue(p); err != nil {
		return false, err
	}
	select {
	case a := <-p.answer:
		return a.duplicate, a.err
	case <-ctx.Done():
		return false, fmt.Errorf("%w: %w", event.ErrSpoolUnwritable, context.Cause(ctx))
	}
}

// Close stops accepting events, answers those that it has accepted, and unlocks the
// directory.
func (s *Spool) Close() error {
	s.closing.Lock()
	if s.closed {
		s.closing.Unlock()
		return nil
	}
	s.closed = true
	close(s.queue)
	s.closing.Unlock()
	s.writer.Wait()
	s.file.Lock()
	defer s.file.Unlock()
	if err := errors.Join(s.db.Close(), s.dir.Close(), s.lock.Close()); err != nil {
		return fmt.Errorf("close spool: %w", err)
	}
	return nil
}
