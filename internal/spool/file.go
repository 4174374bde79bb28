package spool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/google/uuid"
	bolt "go.etcd.io/bbolt"
)

const (
	fileName    = "spool.db"
	newFileName = "spool.new" // until it is complete
	lockName    = "lock"
	damagedName = fileName + ".damaged-" // and the time, and then
	unreadName  = ".unread"              // until what is intact in it is in another file

	// pageSize is fixed, and not the machine's, so that a file can move to another machine.
	pageSize = 4096
	// shrinkAbove is the file size above which an empty spool gets a new file, since
	// bbolt never makes one smaller. It is twice bbolt's smallest step of growth.
	shrinkAbove = 32 << 20
	// buildBatch is how many records go into one transaction while a file is built.
	buildBatch = 4096
)

func (s *Spool) path(name string) string { return filepath.Join(s.config.Dir, name) }

// makeDir makes a directory and any missing parents, and syncs the names of those that it
// made: a file that was fsynced is lost with the name of its directory.
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

// acquireLock locks the directory for this process. The lock is on a file of its own,
// and not on the data, so that the data may be replaced.
func acquireLock(ctx context.Context, dir string, timeout time.Duration) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open spool lock: %w", err)
	}
	deadline := time.After(timeout)
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("lock spool %s: %w", dir, err)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			f.Close()
			return nil, fmt.Errorf("%w: %s: give each receiver a directory of its own", ErrInUse, dir)
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock spool %s: %w", dir, ctx.Err())
		}
	}
}

// load opens the file that is there, or makes one.
//
// A file with something in it is not opened for writing, but copied: bbolt trusts a file
// that it opens, and a flipped bit could crash it, then or later. Reading it can fault
// as well, and that is caught.
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
			s.config.Logger.WarnContext(ctx, "spool file could not be copied: working with it as it is", slog.String("error", err.Error()))
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

// copyAll makes a new file of the one that is there, if any, and of what is intact in
// those that were set aside and are still unread. An error wraps ErrDamaged if the file
// that is there is damaged.
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
		s.config.Logger.ErrorContext(ctx, "nothing was taken over from damaged spool files: see to the disk, then start the receiver again",
			slog.Any("files", unread), slog.String("error", err.Error()))
	}
	return err
}

// adopt works with the file as it is, because there is no space for a copy.
func (s *Spool) adopt(path string) error {
	b := &builder{ids: make(map[uuid.UUID]struct{})}
	if err := readFile(path, b.add); err != nil {
		return err
	}
	return guard(func() error {
		db, err := openFile(path)
		if err != nil {
			return err
		}
		s.use(db, b)
		return nil
	})
}

func openFile(path string) (*bolt.DB, error) {
	// Without its free list, which grows with what was taken out, a file is written in
	// fewer bytes; it is found again when the file is opened.
	return bolt.Open(path, 0o600, &bolt.Options{
		Timeout: time.Second, PageSize: pageSize, NoFreelistSync: true, FreelistType: bolt.FreelistMapType})
}

// shrink frees the disk space that an empty spool does not need. It is called with the file
// locked. If it fails, the spool continues with the file that it has.
func (s *Spool) shrink() {
	if stats := s.Stats(); stats.Queued+stats.DeadLetters > 0 {
		return
	}
	info, err := os.Stat(s.path(fileName))
	if err == nil && info.Size() > shrinkAbove {
		err = s.build(nothing)
	}
	if err != nil {
		s.config.Logger.Warn("empty spool could not be made smaller", slog.String("error", err.Error()))
	}
}
