package spool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"

	"upcall/internal/kept"
)

// show calls visit with the entry for a frame.
func show(frame []byte, visit func(kept.Entry) error) error {
	e, err := kept.Show(frame)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return visit(e)
}

// snapshots is how often a changing file is copied before Read gives up.
const snapshots = 10

// Read calls visit for each callback in the spool of a directory: those that wait, in order,
// then the dead letters. It changes nothing. While a receiver uses the spool, Read shows a
// snapshot. An entry is valid until visit returns. An error wraps ErrDamaged if the file is
// damaged or changes too fast to be read.
func Read(ctx context.Context, dir string, visit func(kept.Entry) error) error {
	path := filepath.Join(dir, fileName)
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("read spool: %w", err)
	}
	each := func(_ kept.Head, frame []byte) error { return show(frame, visit) }
	lock, err := acquireLock(ctx, dir, 0)
	if err == nil {
		defer lock.Close()
		return readFile(path, each)
	}
	if !errors.Is(err, ErrInUse) {
		return err
	}
	for attempt := 1; ; attempt++ {
		copied, err := snapshot(path)
		if err != nil {
			return err
		}
		// Check the whole copy before showing anything.
		err = readFile(copied, func(kept.Head, []byte) error { return nil })
		if err == nil {
			err = readFile(copied, each)
			return errors.Join(err, os.Remove(copied))
		}
		if err := errors.Join(err, os.Remove(copied)); attempt == snapshots || !errors.Is(err, ErrDamaged) {
			return fmt.Errorf("read spool %s while a receiver writes there: %w", dir, err)
		}
	}
}

// snapshot copies a file. If the file changes meanwhile, the copy may be damaged.
func snapshot(path string) (string, error) {
	from, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("copy spool: %w", err)
	}
	defer from.Close()
	to, err := os.CreateTemp("", "upcall-spool-")
	if err != nil {
		return "", fmt.Errorf("copy spool: %w", err)
	}
	_, err = io.Copy(to, from)
	if err = errors.Join(err, to.Close()); err != nil {
		return "", fmt.Errorf("copy spool: %w", errors.Join(err, os.Remove(to.Name())))
	}
	return to.Name(), nil
}

// ReadDamaged calls visit for each intact callback in a damaged file, in the order of
// arrival. Some may have moved to PostgreSQL long ago.
func ReadDamaged(path string, visit func(kept.Entry) error) error {
	seen := make(map[uuid.UUID]bool)
	return carve(path, time.Time{}, func(h kept.Head, frame []byte) error {
		if seen[h.ID] {
			return nil
		}
		seen[h.ID] = true
		return show(frame, visit)
	})
}
