package event

import (
	"errors"
	"fmt"
)

// What can become of an event that is not recorded.
var (
	// ErrUnavailable says that PostgreSQL could not be asked, or did not answer in
	// time. The row may be committed or not; to do it again is harmless.
	ErrUnavailable = errors.New("database is unavailable")
	// ErrQueueFull is ErrUnavailable, too: more rows wait than are held.
	ErrQueueFull = fmt.Errorf("%w: too many rows wait", ErrUnavailable)
	// ErrExpiring is ErrUnavailable, too: the month of a late event is being dropped.
	// Once the month is gone, it can be recorded in a new one.
	ErrExpiring = fmt.Errorf("%w: the event's month is just being dropped", ErrUnavailable)
	// ErrSpoolFull says that the spool's own limit, or that of its disk, is reached.
	ErrSpoolFull = errors.New("spool is full")
	// ErrSpoolUnwritable says that the spool did not take an event, or not in time.
	ErrSpoolUnwritable = errors.New("spool cannot be written")
	// ErrUnstorable says that PostgreSQL can never hold this row: text that is not UTF-8
	// or holds NUL, for example.
	ErrUnstorable = errors.New("database cannot hold this row")
	// ErrRevoked says that the upload was revoked. The event is not recorded; that it
	// was refused is committed.
	ErrRevoked = errors.New("upload was revoked")
)
