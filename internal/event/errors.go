package event

import (
	"errors"
	"fmt"
)

// Why an event is not recorded.
var (
	// ErrUnavailable says that PostgreSQL could not be reached, or did not answer in time.
	// The row may or may not be committed; retrying is harmless.
	ErrUnavailable = errors.New("database is unavailable")
	// ErrQueueFull is ErrUnavailable, too: the queue has no room for another row.
	ErrQueueFull = fmt.Errorf("%w: too many rows wait", ErrUnavailable)
	// ErrExpiring is ErrUnavailable, too: the month of a late event is being dropped.
	// Once the month is gone, it can be recorded in a new one.
	ErrExpiring = fmt.Errorf("%w: the event's month is just being dropped", ErrUnavailable)
	// ErrDeadLetter is ErrUnavailable, too: PostgreSQL accepts other rows, but not this one,
	// because of a trigger or a constraint of the operator's, for example.
	ErrDeadLetter error = unrecorded("database cannot hold this row")
	// ErrNoRowFits is ErrUnavailable, too: PostgreSQL answers, but accepts no row at all.
	ErrNoRowFits error = unrecorded("database accepts no row at all")
	// ErrSpoolFull says that the spool has reached its limit, or its disk is full.
	ErrSpoolFull = errors.New("spool is full")
	// ErrSpoolUnwritable says that the spool did not accept an event, or not in time.
	ErrSpoolUnwritable = errors.New("spool cannot be written")
	// ErrStreamFull says that the stream has reached its limit, or its servers have no room.
	ErrStreamFull = errors.New("stream is full")
	// ErrStreamUnwritable says that the stream did not accept an event, or not in time.
	ErrStreamUnwritable = errors.New("stream cannot be written")
	// ErrUnstorable says that no PostgreSQL can hold this row: text that is not UTF-8 or
	// holds NUL, for example.
	ErrUnstorable = errors.New("database cannot hold this row")
	// ErrOverused says that the upload has as many events as one may have. The event is not
	// recorded.
	ErrOverused = errors.New("upload has too many events")
	// ErrRevoked says that the upload was revoked. The event is not recorded, and its
	// refusal is committed.
	ErrRevoked = errors.New("upload was revoked")
)

// unrecorded is ErrUnavailable with a text of its own, because PostgreSQL is there.
type unrecorded string

// Error says why.
func (e unrecorded) Error() string { return string(e) }

// Unwrap makes it ErrUnavailable.
func (unrecorded) Unwrap() error { return ErrUnavailable }
