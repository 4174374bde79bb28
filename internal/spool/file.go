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
	damagedName = fileName + ".damaged-" // and the time

	// pageSize is set, and not the machine's, so that files can be carried about.
	pageSize = 4096
	// shrinkAbove is the file size above which an empty spool gets a new file, since
	// bbolt never makes one smaller. It is twice bbolt's smallest step of growth.
	shrinkAbove = 32 << 20
	// buildBatch is how many records go into one transaction while a file is built.
	buildBatch = 4096
)

func (s *Spool) path(name string) string { return filepath.Join(s.config.Dir, name) }

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
	if err := s.countDamaged(); err != nil {
		return err
	}
	path := s.path(fileName)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return s.build(nothing)
	} else if err != nil {
		return err
	}
	err := s.build(func(b *builder) error { return readFile(path, b.add) })
	switch {
	case errors.Is(err, ErrDamaged):
		err = s.salvage(ctx, path, err)
	case err != nil:
		s.config.Logger.WarnContext(ctx, "spool file could not be copied: working with it as it is", slog.String("error", err.Error()))
		err = s.adopt(path)
	}
	if stats := s.Stats(); err == nil && stats.Queued+stats.Rejected > 0 {
		s.config.Logger.InfoContext(ctx, "spooled callbacks found", slog.Int("queued", stats.Queued),
			slog.Int("rejected", stats.Rejected), slog.Time("oldest", stats.Oldest))
	}
	return err
}

func nothing(*builder) error { return nil }

// salvage sets a damaged file aside and makes another of what is intact in it.
func (s *Spool) salvage(ctx context.Context, path string, damage error) error {
	aside, err := s.setAside(path)
	if err != nil {
		return errors.Join(damage, err)
	}
	s.config.Logger.ErrorContext(ctx, "damaged spool file set aside: what is intact in it is taken over",
		slog.String("file", aside), slog.String("error", damage.Error()))
	since := s.config.Now().Add(-carveAge)
	if err := s.build(func(b *builder) error { return carve(aside, since, b.add) }); err != nil {
		s.config.Logger.ErrorContext(ctx, "nothing was taken over: receiver spool export shows what is in the file",
			slog.String("file", aside), slog.String("error", err.Error()))
		return s.build(nothing)
	}
	return nil
}

// adopt works with a file that was left, for want of room for a copy.
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

// setAside renames a damaged file, under a name that is not taken.
func (s *Spool) setAside(path string) (string, error) {
	for now := s.config.Now().UTC(); ; now = now.Add(time.Second) {
		aside := s.path(damagedName + now.Format("20060102T150405Z"))
		if _, err := os.Lstat(aside); err == nil {
			continue
		}
		if err := os.Rename(path, aside); err != nil {
			return "", fmt.Errorf("set damaged file aside: %w", err)
		}
		return aside, s.countDamaged()
	}
}

func (s *Spool) countDamaged() error {
	entries, err := os.ReadDir(s.config.Dir)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Damaged = 0
	for _, e := range entries {
		if len(e.Name()) > len(damagedName) && e.Name()[:len(damagedName)] == damagedName {
			s.stats.Damaged++
		}
	}
	return nil
}

// shrink gives the disk back what an empty spool does not need. It is called with the
// file locked. Where that cannot be, the spool works on with the file that it has.
func (s *Spool) shrink() {
	if stats := s.Stats(); stats.Queued+stats.Rejected > 0 {
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
