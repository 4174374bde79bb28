package spool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"
)

// An Entry is a callback in a spool, for people to look at.
type Entry struct {
	ID         uuid.UUID
	ReceivedAt time.Time
	Bucket     string
	Object     string
	Reason     string // why it is a dead letter; "" while it waits
	JSON       []byte // all of it, on one line
}

// show calls visit for a frame.
func show(frame []byte, visit func(Entry) error) error {
	r, err := decode(frame)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	line, err := r.line()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	e := Entry{ID: r.ID, ReceivedAt: r.ReceivedAt, Bucket: r.Callback.Bucket, Object: r.Callback.Object, JSON: line}
	if r.dead != nil {
		e.Reason = r.dead.Reason
	}
	return visit(e)
}

// line returns the event's JSON and, behind its members, what else a record has. Scripts
// know id and object from before events had one form everywhere.
func (r *record) line() ([]byte, error) {
	line, err := r.AppendJSON(nil)
	if err != nil {
		return nil, err
	}
	more, err := json.Marshal(struct {
		ID         uuid.UUID   `json:"id"`
		Object     string      `json:"object,omitempty"`
		SourceAddr netip.Addr  `json:"source_addr,omitzero"`
		Rejected   *deadLetter `json:"rejected,omitempty"`
	}{r.ID, r.Callback.Object, r.SourceAddr, r.dead})
	if err != nil {
		return nil, err
	}
	return append(append(line[:len(line)-1], ','), more[1:]...), nil
}

// snapshots is how often a file that changes meanwhile is copied.
const snapshots = 10

// Read calls visit for what is in the spool of a directory: those that wait, in order,
// then the dead letters. It changes nothing, and works while a receiver has the
// spool, of which it sees a moment then. An entry is good until visit returns. An error
// wraps ErrDamaged if the file is, or changes too fast to be looked at.
func Read(ctx context.Context, dir string, visit func(Entry) error) error {
	path := filepath.Join(dir, fileName)
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("read spool: %w", err)
	}
	each := func(_ head, frame []byte) error { return show(frame, visit) }
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
		// All of it is looked at before any is shown.
		err = readFile(copied, func(head, []byte) error { return nil })
		if err == nil {
			err = readFile(copied, each)
			return errors.Join(err, os.Remove(copied))
		}
		if err := errors.Join(err, os.Remove(copied)); attempt == snapshots || !errors.Is(err, ErrDamaged) {
			return fmt.Errorf("read spool %s while a receiver writes there: %w", dir, err)
		}
	}
}

// snapshot copies a file that may change meanwhile, so that the copy may be damaged.
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

// ReadDamaged calls visit for each callback that is intact in a damaged file,
// in the order of arrival. Some may have moved to PostgreSQL long ago.
func ReadDamaged(path string, visit func(Entry) error) error {
	seen := make(map[uuid.UUID]bool)
	err := carve(path, time.Time{}, func(h head, frame []byte) error {
		if seen[h.id] {
			return nil
		}
		seen[h.id] = true
		return show(frame, visit)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read damaged file: %w", err)
	}
	return err
}
