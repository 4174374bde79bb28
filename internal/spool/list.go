package spool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"

	"upcall/internal/event"
)

// An Entry is a callback in a spool, for display.
type Entry struct {
	ID         uuid.UUID
	ReceivedAt time.Time
	Bucket     string
	Object     string
	Reason     string // why it is a dead letter; "" while it waits
	JSON       []byte `json:"-"` // the whole record, on one line
}

// show calls visit with the entry for a frame.
func show(frame []byte, visit func(Entry) error) error {
	h, err := check(frame)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	e := Entry{ID: h.id, ReceivedAt: h.receivedAt}
	if h.dead {
		e.Reason = event.ErrUnstorable.Error()
	}
	r, err := decode(frame)
	if err == nil {
		e.Bucket, e.Object = r.Callback.Bucket, r.Callback.Object
		if r.dead != nil {
			e.Reason = r.dead.Reason
		}
		e.JSON, err = r.line()
	}
	if err != nil { // intact, but not for this program
		e.Reason = err.Error()
		e.JSON, err = json.Marshal(struct {
			ID         uuid.UUID         `json:"id"`
			ReceivedAt time.Time         `json:"received_at"`
			Record     []byte            `json:"record"`
			Rejected   map[string]string `json:"rejected"`
		}{h.id, h.receivedAt, frame[headerSize+headSize:], map[string]string{"reason": e.Reason}})
		if err != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
	}
	return visit(e)
}

// line returns the event's JSON with more members at its end. Scripts may read the members
// id and object, which are older than the event's own JSON.
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

// snapshots is how often a changing file is copied before Read gives up.
const snapshots = 10

// Read calls visit for each callback in the spool of a directory: those that wait, in order,
// then the dead letters. It changes nothing. While a receiver uses the spool, Read shows a
// snapshot. An entry is valid until visit returns. An error wraps ErrDamaged if the file is
// damaged or changes too fast to be read.
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
		// Check the whole copy before showing anything.
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
func ReadDamaged(path string, visit func(Entry) error) error {
	seen := make(map[uuid.UUID]bool)
	return carve(path, time.Time{}, func(h head, frame []byte) error {
		if seen[h.id] {
			return nil
		}
		seen[h.id] = true
		return show(frame, visit)
	})
}
