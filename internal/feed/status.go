package feed

import (
	"context"
	"errors"
	"time"

	"upcall/internal/event"
)

// A Status is the state of the log, as JSON for people and programs.
type Status struct {
	Unreadable    string           `json:"unreadable,omitempty"` // why the log cannot be read
	CompleteBelow uint64           `json:"complete_below"`       // the watermark: entries of older transactions can be read
	Next          uint64           `json:"next"`                 // the next transaction
	HeldEvents    int              `json:"held_events"`          // committed, but not below the watermark; MostLag if there are more
	HeldSeconds   float64          `json:"held_seconds"`         // age of the first of them
	HeldBy        []HolderStatus   `json:"held_by"`
	Consumers     []ConsumerStatus `json:"consumers"`
}

// A HolderStatus is a [Holder].
type HolderStatus struct {
	XID      uint64    `json:"xid"`
	Since    time.Time `json:"since"`
	PID      int       `json:"pid,omitempty"`
	Prepared string    `json:"prepared,omitempty"`
	Database string    `json:"database"`
	User     string    `json:"user"`
	Program  string    `json:"program,omitempty"`
	State    string    `json:"state"`
	Query    string    `json:"query,omitempty"`
}

// A ConsumerStatus is a [Consumer] and how far it is behind.
type ConsumerStatus struct {
	Name       string    `json:"name"`
	LagEvents  int       `json:"lag_events"`
	LagSeconds float64   `json:"lag_seconds"`
	Problem    string    `json:"problem,omitempty"` // why the lag is not known
	Holder     string    `json:"holder,omitempty"`  // if it has a lease
	UpdatedAt  time.Time `json:"updated_at"`
}

// Status returns the state of the log. What cannot be read is not an error, except if
// PostgreSQL does not answer.
func (l *Log) Status(ctx context.Context) (Status, error) {
	s := Status{HeldBy: []HolderStatus{}, Consumers: []ConsumerStatus{}}
	if _, err := l.place(ctx); errors.Is(err, event.ErrUnavailable) {
		return Status{}, err
	} else if err != nil {
		s.Unreadable = err.Error()
	}
	now, err := l.head(ctx)
	if err != nil {
		return Status{}, err
	}
	s.CompleteBelow, s.Next = now.xmin, now.xmax
	if s.Unreadable == "" { // without the index, or among restored events, this says nothing
		held, err := l.lagOf(ctx, "upcall_held", heldSQL, MostLag)
		if err != nil {
			return Status{}, err
		}
		s.HeldEvents, s.HeldSeconds = held.Events, held.Age.Seconds()
	}
	holders, err := l.Holders(ctx)
	if err != nil {
		return Status{}, err
	}
	for _, h := range holders {
		s.HeldBy = append(s.HeldBy, HolderStatus(h))
	}
	consumers, err := ListConsumers(ctx, l.config.Pool)
	if err != nil {
		return Status{}, err
	}
	for _, c := range consumers {
		status := ConsumerStatus{Name: c.Name, UpdatedAt: c.UpdatedAt}
		if c.Until.After(l.config.Now()) {
			status.Holder = c.Holder
		}
		lag, err := l.lagAfter(ctx, c.Cursor, c.reads())
		if err != nil {
			status.Problem = err.Error()
		}
		status.LagEvents, status.LagSeconds = lag.Events, lag.Age.Seconds()
		s.Consumers = append(s.Consumers, status)
	}
	return s, nil
}
