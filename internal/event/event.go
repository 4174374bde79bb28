// Package event holds the upload event, its columns and JSON, and the errors of recording it.
package event

import (
	"net/netip"
	"time"

	"github.com/google/uuid"

	"upcall/internal/callbackspec"
)

// A Source says how we know of an upload.
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

	// Acknowledged says that the sender already has the answer 200, so the event is recorded
	// even if its upload has been revoked since it was received.
	Acknowledged bool

	// SourceAddr is where the callback came from, to be kept with refusals only. The zero
	// value means unknown.
	SourceAddr netip.Addr
}
