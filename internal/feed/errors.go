package feed

import (
	"errors"
	"fmt"
)

var (
	// ErrGone says that entries after the cursor have been dropped. It is a *GoneError.
	ErrGone = errors.New("cursor is older than the log")
	// ErrRestored says that the events were restored from another cluster, and are numbered
	// ahead of this one.
	ErrRestored = errors.New("events were restored from another cluster: run receiver feed repair")
	// ErrUnready says that the log's index is not complete.
	ErrUnready = errors.New("the index of the log is not complete: run receiver migrate up")
	// ErrBehind says that the server is on an older timeline than the cursor: it is a former
	// primary.
	ErrBehind = errors.New("the database server is on an older timeline than the cursor")
	// ErrLost says that another receiver has the lease, or that the cursor was moved.
	ErrLost = errors.New("lease was lost")
	// ErrNoConsumer says that there is no consumer with the name.
	ErrNoConsumer = errors.New("no such consumer")
	// ErrExists says that there is a consumer with the name already.
	ErrExists = errors.New("consumer exists already")
)

// A GoneError is an [ErrGone].
type GoneError struct {
	Oldest Cursor // the oldest that the log has
}

// Error says so in one line.
func (e *GoneError) Error() string { return fmt.Sprintf("%v: the oldest is %v", ErrGone, e.Oldest) }

// Unwrap makes it ErrGone.
func (*GoneError) Unwrap() error { return ErrGone }
