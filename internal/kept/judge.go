package kept

import (
	"errors"

	"upcall/internal/event"
)

// A Verdict is what becomes of an event after an attempt to record it.
type Verdict int

const (
	Moved   Verdict = iota // it is recorded
	Dead                   // it becomes a dead letter
	Refused                // PostgreSQL failed it, and accepts others: try it a few times more
	Waits                  // PostgreSQL is away: try it again
)

// mostTries is how often PostgreSQL may fail an event, and accept others, until the event
// is a dead letter. A server in trouble can fail it once or twice.
const mostTries = 3

// Judge returns what becomes of an event whose recording ended with err and which was Refused so often before.
//
// Dead is what can never be recorded, what PostgreSQL has failed several times, and an event of a month that is
// being dropped: dropping waits for all readers of the month.
func Judge(err error, refused int) Verdict {
	switch {
	case err == nil:
		return Moved
	case errors.Is(err, event.ErrExpiring), !errors.Is(err, event.ErrUnavailable):
		return Dead
	case errors.Is(err, event.ErrDeadLetter) && refused+1 == mostTries:
		return Dead
	case errors.Is(err, event.ErrDeadLetter):
		return Refused
	}
	return Waits
}
