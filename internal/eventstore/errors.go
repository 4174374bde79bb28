package eventstore

import (
	"errors"
	"fmt"

	"upcall/internal/event"
)

var (
	// ErrClosed is event.ErrUnavailable, too: the recorder or ledger takes nothing more.
	ErrClosed = fmt.Errorf("%w: it is being closed", event.ErrUnavailable)
	// ErrNotFound says that there is no such row.
	ErrNotFound = errors.New("not found")
	// ErrExists says that there is such a row already.
	ErrExists = errors.New("exists already")
)
