package feed

import (
	"context"
	"time"

	"github.com/google/uuid"
)

// A Passed reports whether a cursor has passed the entry with this id. xid is its recorded_xid; that of
// an event without one is 0, and then its received_at counts.
type Passed func(xid uint64, at time.Time, id uuid.UUID) bool

// Passed returns what a cursor has passed. Cursors from before a failover have passed only what is read no
// second time. Errors are those of [Log.Page].
func (l *Log) Passed(ctx context.Context, c Cursor) (Passed, error) {
	h, err := l.place(ctx)
	if err != nil {
		return nil, err
	}
	until, foreign, err := h.resolve(c)
	if err == nil && foreign {
		until, err = l.movedTo(ctx, h, c, until)
	}
	if err != nil {
		return nil, err
	}
	return func(xid uint64, at time.Time, id uuid.UUID) bool {
		entry := position{xid: xid, id: id}
		if xid == 0 {
			entry.at = at.UnixMicro()
		}
		return entry.compare(until) <= 0
	}, nil
}
