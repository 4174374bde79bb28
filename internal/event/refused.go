package event

import (
	"net/netip"
	"time"

	"github.com/google/uuid"
)

// A RefusedCallback is a row of upcall.refused_callbacks. Its texts are the sender's claims: they
// can be anything, and are truncated.
type RefusedCallback struct {
	Digest    uuid.UUID // of the callback; with Reason the row's identity
	Reason    string    // an admission.Reason
	At        time.Time // when the callback was read
	Source    netip.Addr
	Bucket    string // "" is absent, as in the next two
	Object    string
	RequestID string
	UploadID  uuid.NullUUID // from a genuine token
}
