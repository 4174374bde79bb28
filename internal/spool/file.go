package spool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"

	"upcall/internal/filelock"
	"upcall/internal/kept"
)

const (
	fileName    = "spool.db"
	newFileName = "spool.new" // until it is complete
	lockName    = "lock"
	socketName  = "control"
	damagedName = fileName + ".damaged-" // and the time, and then
	unreadName  = ".unread"              // until its intact records are in another file

	// pageSize does not depend on the machine, so that a file can move to another one.
	pageSize = 4096
	// shrinkAbove is the file size above which an empty spool gets a new file, because bbolt
	// never shrinks one. It is twice bbolt's smallest step of growth.
	shrinkAbove = 32 << 20
	// buildBatch is how many records go into one transaction while a file is built.
	buildBatch = 4096
)

func (s *Spool) path(name string) string { return filepath.Join(s.config.Dir, name) }

// makeDir creates a directory and its missing parents, and fsyncs their names. Without that,
// an fsynced file could be lost with the name of its directory.
func makeDir(dir string) error {
	var changed []string
	for d := filepath.Clean(dir); !exists(d); d = filepath.Dir(d) {
		changed = append(changed, filepath.Dir(d))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, path := range changed {
		d, err := os.Open(path)
		if err != nil {
			return err
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil {
			return err
		}
	}
	return nil
}

// acquireLock locks the directory for this process. The lock is not on the data file
// because that may be replaced.
func acquireLock(ctx context.Context, dir string, timeout time.Duration) (*os.File, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("%w: give each receiver its own directory", ErrInUse))
	defer cancel()
	return filelock.Wait(ctx, filepath.Join(dir, lockName), nil)
}

// load makes a new file with the records of the old one, if there is one.
//
// It copies the old file rather than write to it: bbolt trusts a file that it opens, and a
// flipped bit could crash it, then or later. Reading it can fault, too, but a fault while
// reading is caught.
func (s *Spool) load(ctx context.Context) error {
	path := s.path(fileName)
	err := s.copyAll(ctx)
	if errors.Is(err, ErrDamaged) {
		if err := s.quarantine(ctx, path, err); err != nil {
			return err
		}
		err = s.copyAll(ctx)
	}
	if err != nil {
		if _, missing := os.Stat(path); errors.Is(missing, fs.ErrNotExist) {
			err = s.build(nothing)
		} else {
			s.config.Logger.WarnContext(ctx, "spool file could not be copied; using it without a copy",
				slog.String("error", err.Error()))
			err = s.adopt(path)
		}
	}
	if stats := s.Stats(); err == nil && stats.Queued+stats.DeadLetters > 0 {
		s.config.Logger.InfoContext(ctx, "spooled callbacks found", slog.Int("queued", stats.Queued),
			slog.Int("dead_letters", stats.DeadLetters), slog.Time("oldest", stats.Oldest))
	}
	return err
}

func nothing(*builder) error { return nil }

// copyAll makes a new file with the records of the old one, if there is one, and the intact
// records of unread damaged files. An error wraps ErrDamaged if the old file is damaged.
func (s *Spool) copyAll(ctx context.Context) error {
	unread, err := s.countDamaged()
	if err != nil {
		return err
	}
	since := s.config.Now().Add(-carveAge)
	err = s.build(func(b *builder) error {
		if err := readFile(s.path(fileName), b.add); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, path := range unread {
			if err := carve(path, since, b.add); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		s.markRead(ctx, unread)
	} else if len(unread) > 0 && !errors.Is(err, ErrDamaged) {
		s.config.Logger.ErrorContext(ctx, "damaged spool files could not be recovered: check the disk, then restart the receiver",
			slog.Any("files", unread), slog.String("error", err.Error()))
	}
	return err
}

// adopt uses the old file itself because there is no space for a copy.
func (s *Spool) adopt(path string) error {
	in := newKnown()
	err := readFile(path, func(h kept.Head, _ []byte) error {
		in.add(h)
		return nil
	})
	if err != nil {
		return err
	}
	return guard(func() error {
		db, err := openFile(path)
		if err != nil {
			return err
		}
		s.use(db, in)
		return nil
	})
}

func openFile(path string) (*bolt.DB, error) {
	// Without the free list, which grows with each record that is removed, a commit writes
	// less. bbolt finds the free pages again when it opens the file.
	return bolt.Open(path, 0o600, &bolt.Options{
		Timeout: time.Second, PageSize: pageSize, NoFreelistSync: true, FreelistType: bolt.FreelistMapType})
}

// shrink frees the disk space that an empty spool does not need, and what was to be erased from a
// large one. The caller holds s.file. If shrink fails, the spool keeps its old file.
func (s *Spool) shrink() {
	stats := s.Stats()
	if s.unclean && stats.Bytes <= s.rewriteBelow {
		if _, err := s.rewrite(); err != nil {
			s.config.Logger.Warn("spool file could not be rewritten; it holds remains of what was to be erased",
				slog.String("error", err.Error()))
		}
		return
	}
	if stats.Queued+stats.DeadLetters > 0 {
		return
	}
	info, err := os.Stat(s.path(fileName))
	if err == nil && info.Size() > shrinkAbove {
		err = s.build(nothing)
	}
	if err != nil {
		s.config.Logger.Warn("empty spool file could not be shrunk", slog.String("error", err.Error()))
	}
}
