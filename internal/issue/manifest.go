package issue

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"
)

// A Multipart is a multipart upload that was initiated: all that an uploader without
// credentials needs to store an object in parts, to go on after a break, to end the
// upload or to give it up. Its JSON is the manifest that `issuer multipart create`
// prints.
type Multipart struct {
	ID          uuid.UUID `json:"upload_id"` // ours, the one in the token
	Bucket      string    `json:"bucket"`
	Key         string    `json:"key"`
	OSSUploadID string    `json:"oss_upload_id"`
	Size        *int64    `json:"size"`       // bytes of the whole object; null where only the parts were counted
	PartSize    int64     `json:"part_size"`  // bytes of each part but the last; the smallest allowed where size is null
	ExpiresAt   time.Time `json:"expires_at"` // of every URL below: RFC 3339, UTC, whole seconds

	// Parts are in order, from number 1, without a gap.
	Parts []Part `json:"parts"`

	// Complete merges the parts. Its body is the CompleteMultipartUpload document with
	// the ETag of each part; the callback comes with it and with nothing before.
	Complete PresignedRequest `json:"complete"`

	Abort     PresignedRequest `json:"abort"`
	ListParts PresignedRequest `json:"list_parts"`

	// Callback and CallbackVar are as in [Upload].
	Callback    json.RawMessage `json:"callback"`
	CallbackVar json.RawMessage `json:"callback_var"`
}

// A Part is one part's upload.
type Part struct {
	Number int32  `json:"number"` // 1 to 10,000
	Size   *int64 `json:"size"`   // exact size in bytes; null where the whole size is not known
	PresignedRequest
}

// A PresignedRequest may be sent by whoever has it until it expires.
type PresignedRequest struct {
	Method  string            `json:"method"`
	URL     string            `json:"url"`
	Headers map[string]string `json:"headers"` // all to be sent exactly so, by lower-case names; never null
}
