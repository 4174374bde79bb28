package eventstore

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/google/uuid"

	"upcall/internal/callbackspec"
)

var (
	// ErrUnavailable says that PostgreSQL could not be asked, or did not answer in
	// time. The row may be committed or not; to do it again is harmless.
	ErrUnavailable = errors.New("database is unavailable")
	// ErrQueueFull is ErrUnavailable, too: more rows wait than are held.
	ErrQueueFull = fmt.Errorf("%w: too many rows wait", ErrUnavailable)
	// ErrClosed is ErrUnavailable, too: the recorder or ledger takes nothing more.
	ErrClosed = fmt.Errorf("%w: it is being closed", ErrUnavailable)
	// ErrRejected says that PostgreSQL cannot hold this row, ever: text that is not
	// UTF-8 or holds NUL, for example.
	ErrRejected = errors.New("database cannot hold this row")
	// ErrRevoked says that the upload was revoked. The event is not recorded; that it
	// was refused is committed.
	ErrRevoked = errors.New("upload was revoked")
	// ErrNotFound says that there is no such row.
	ErrNotFound = errors.New("not found")
	// ErrExists says that there is such a row already.
	ErrExists = errors.New("exists already")
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

	// Acknowledged says that its sender was told already that it is kept. So it is
	// recorded even if its upload has been revoked.
	Acknowledged bool

	// SourceAddr is where the callback came from. It is kept with what is refused only;
	// the zero value is not known.
	SourceAddr netip.Addr
}
