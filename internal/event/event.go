// Package event holds the upload event, its columns and JSON, and the errors of recording it.
package event

import (
	"crypto/sha256"
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

// A Kind says what an entry of the log tells of an upload.
type Kind string

const (
	Recorded Kind = "recorded" // it was recorded
	Disputed Kind = "disputed" // the object is not what its event says
	Gone     Kind = "gone"     // the object is not there any more
)

// FindingID returns the id of what was found about an event. It is a digest, so that it is the same
// however often that is found.
func FindingID(event uuid.UUID, kind Kind) uuid.UUID {
	digest := sha256.Sum256(append([]byte("finding "+kind+" "), event[:]...))
	return uuid.UUID(digest[:16])
}

// An Event is one upload, as a row of upcall.upload_events.
type Event struct {
	ID         uuid.UUID // the callback's identity
	ReceivedAt time.Time // PostgreSQL keeps microseconds of it
	Callback   callbackspec.Callback
	UploadID   uuid.NullUUID // from the token, if there was one
	Source     Source        // "" means SourceCallback

	// Supersedes is the event that this one takes the place of, because a callback came after all. It is
	// no column: it is looked up where events are read, see eventstore.EventColumns.
	Supersedes uuid.NullUUID

	// Acknowledged says that the sender already has the answer 200, so the event is recorded
	// even if its upload has been revoked since it was received.
	Acknowledged bool

	// SourceAddr is where the callback came from, to be kept with refusals only. The zero
	// value means unknown.
	SourceAddr netip.Addr
}

// IsRemoval reports whether it tells that an object was removed, which only notifications do.
func (e *Event) IsRemoval() bool {
	return e.Callback.Operation == "DeleteObject" || e.Callback.Operation == "DeleteObjects"
}
