// Package recorder keeps events: in PostgreSQL or, while PostgreSQL takes none, in a
// fallback, from which they move to PostgreSQL later.
package recorder

import (
	"context"

	"github.com/google/uuid"

	"upcall/internal/event"
)

// Durable is where an event is that was acknowledged.
type Durable string

const (
	InPostgres Durable = "postgres" // committed
	InSpool    Durable = "spool"    // on the receiver's disk, and to be moved to PostgreSQL
)

// An Outcome is what became of an event that is kept.
type Outcome struct {
	Durable   Durable
	Duplicate bool // it was there before
}

// A Primary is PostgreSQL: an eventstore.Recorder. It is an interface so that tests can
// have an answer come late.
type Primary interface {
	// Record returns when the event is committed. An error wraps one of package event.
	Record(ctx context.Context, e *event.Event) (duplicate bool, err error)
	// Find says whether an event, of this upload, is committed.
	Find(ctx context.Context, id uuid.UUID, upload uuid.NullUUID) (bool, error)
	// Ping says whether PostgreSQL answers.
	Ping(ctx context.Context) error
	// Depth is how many events wait for a commit.
	Depth() int
}

// A Fallback holds events until the primary takes them. A spool.Spool is one; a
// replicated log can be another.
type Fallback interface {
	// Put returns when the event is durable. An error wraps event.ErrSpoolFull,
	// event.ErrSpoolUnwritable or event.ErrUnstorable.
	Put(ctx context.Context, e *event.Event) (duplicate bool, err error)
	// Has says whether the event waits to be moved.
	Has(id uuid.UUID) bool
	// HasDeadLetter says whether the event was taken and then could not be moved.
	HasDeadLetter(id uuid.UUID) bool
	// Depth is how many events wait to be moved.
	Depth() int
	// Move has record take the oldest events, at most that many, all at once, and
	// returns how many of them are recorded.
	Move(ctx context.Context, record func(context.Context, *event.Event) (duplicate bool, err error), most int) (moved int, err error)
}
