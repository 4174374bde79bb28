// Package event is the upload event: one upload that we know of, and what can become of
// it when it is to be recorded. Every part that handles events speaks of this type.
package event

import (
	"net/netip"
	"time"

	"github.com/google/uuid"

	"upcall/internal/callbackspec"
)

// A Source is how we know of an upload.
type Source string

const (
	SourceCallback     Source = "callback"     // OSS called the receiver back
	SourceNotification Source = "notification" // OSS's event notification told us
	SourceReconcile    Source = "reconcile"    // the object was found in a listing
)

// An Event is one upload, as a row of upcall.upload_events.
type Event struct {
	ID         uuid.UUID // the callback's identity
	ReceivedAt time.Time // PostgreSQL keeps microseconds of it
	Callback   callbackspec.Callback
	UploadID   uuid.NullUUID // from the token, if there was one
	Source     Source        // "" means SourceCallback

	// Acknowledged says that its sender was already told that it is kept. So it is
	// recorded even if its upload has been revoked.
	Acknowledged bool

	// SourceAddr is where the callback came from. It is kept only with what is refused;
	// the zero value means unknown.
	SourceAddr netip.Addr
}
