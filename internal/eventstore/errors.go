package eventstore

import (
	"errors"
	"fmt"

	"upcall/internal/event"
)

var (
	// ErrClosed is event.ErrUnavailable, too: the recorder or ledger accepts no more rows.
	ErrClosed = fmt.Errorf("%w: it is being closed", event.ErrUnavailable)
	// ErrNotFound says that there is no such row.
	ErrNotFound = errors.New("not found")
	// ErrExists says that the row already exists.
	ErrExists = errors.New("exists already")
)
