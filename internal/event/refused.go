package event

import (
	"net/netip"
	"time"

	"github.com/google/uuid"
)

// A RefusedCallback is a callback that was refused, as a row of upcall.refused_callbacks.
// What it says is what its sender claimed: texts can be anything, and are cut.
type RefusedCallback struct {
	Digest    uuid.UUID // of the callback; with Reason the row's identity
	Reason    string    // a short word of ours
	At        time.Time // when the callback was read
	Source    netip.Addr
	Bucket    string // "" is absent, as in the next two
	Object    string
	RequestID string
	UploadID  uuid.NullUUID // from a genuine token
}
