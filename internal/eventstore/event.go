package eventstore

import (
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"upcall/internal/callbackspec"
)

var (
	// ErrUnavailable says that PostgreSQL could not be asked, or did not answer in
	// time. The event may be recorded or not; recording it again is harmless.
	ErrUnavailable = errors.New("database is unavailable")
	// ErrQueueFull is ErrUnavailable, too: more events wait than the recorder holds.
	ErrQueueFull = fmt.Errorf("%w: too many events wait", ErrUnavailable)
	// ErrClosed is ErrUnavailable, too: the recorder takes no more events.
	ErrClosed = fmt.Errorf("%w: the recorder is closed", ErrUnavailable)
	// ErrRejected says that PostgreSQL cannot hold this event, ever: text that is not
	// UTF-8 or holds NUL, for example.
	ErrRejected = errors.New("database cannot hold this event")
)

// SourceCallback is the Source of what OSS itself told the receiver.
const SourceCallback = "callback"

// An Event is one upload, as a row of upcall.upload_events.
type Event struct {
	ID         uuid.UUID // the callback's identity
	ReceivedAt time.Time // PostgreSQL keeps microseconds of it
	Callback   callbackspec.Callback
	UploadID   uuid.NullUUID // from the token, if there was one
	Source     string        // how we know of it; "" means SourceCallback
}
