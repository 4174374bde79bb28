// Package recorder stores events in PostgreSQL. While PostgreSQL accepts none, it stores them
// in a fallback, from which they move to PostgreSQL later.
package recorder

import (
	"context"

	"github.com/google/uuid"

	"upcall/internal/event"
)

// Durable is where an acknowledged event is stored.
type Durable string

const (
	InPostgres Durable = "postgres" // committed
	InSpool    Durable = "spool"    // on the receiver's disk, until it moves to PostgreSQL
	InStream   Durable = "stream"   // on the disks of a majority of NATS servers, until it moves to PostgreSQL
)

// An Outcome says what happened to a stored event.
type Outcome struct {
	Durable   Durable
	Duplicate bool // it was already there
}

// A Primary is PostgreSQL: an eventstore.Recorder. It is an interface so that tests can delay
// an answer.
type Primary interface {
	// Record returns when the event is committed. An error wraps one of package event.
	Record(ctx context.Context, e *event.Event) (duplicate bool, err error)
	// Find reports whether an event of this upload is committed.
	Find(ctx context.Context, id uuid.UUID, upload uuid.NullUUID) (bool, error)
	// Ping returns an error if PostgreSQL does not record.
	Ping(ctx context.Context) error
	// Fits returns an error if PostgreSQL accepts no event, whatever is in it.
	Fits(ctx context.Context) error
	// Depth is how many events wait for a commit.
	Depth() int
}

// A Fallback holds events until the primary accepts them: a spool.Spool or a stream.Stream.
type Fallback interface {
	// Put returns when the event is durable. An error wraps event.ErrUnstorable, or says that the fallback is full
	// or cannot be written.
	Put(ctx context.Context, e *event.Event) (duplicate bool, err error)
	// Has reports whether the event is known to wait to be moved.
	Has(id uuid.UUID) bool
	// HasDeadLetter reports whether the event was accepted and then could not be moved.
	HasDeadLetter(id uuid.UUID) bool
	// Depth is how many events wait to be moved.
	Depth() int
	// Move calls record for the oldest events, up to most of them, all at once, and
	// returns how many are recorded.
	Move(ctx context.Context, record func(context.Context, *event.Event) (duplicate bool, err error), most int) (moved int, err error)
}
