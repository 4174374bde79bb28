package issue

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"

	"upcall/internal/oss"
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
	PartSize    int64     `json:"part_size"`  // bytes of each part but the last
	ExpiresAt   time.Time `json:"expires_at"` // of every URL below: RFC 3339, UTC, whole seconds

	// Parts are in order, from number 1, without a gap. Where size is null, an object
	// that needs fewer leaves the rest out.
	Parts []Part `json:"parts"`

	// Complete merges the parts. Its body is the CompleteMultipartUpload document with
	// the ETag of each part; the callback comes with it and with nothing before.
	Complete PresignedRequest `json:"complete"`

	Abort PresignedRequest `json:"abort"`

	// ListParts lists the first thousand of the parts that are there. Where there may be
	// more, ListPartsNext lists the first thousand behind number 1000, behind 2000 and so
	// on: where numbers are missing, a part may be in two lists.
	ListParts     PresignedRequest   `json:"list_parts"`
	ListPartsNext []PresignedRequest `json:"list_parts_next,omitempty"`

	// Head asks for the object's size and CRC-64, without its content. It tells what
	// became of the merge where the answer to that was lost. nil in manifests that were
	// made before there was one.
	Head *PresignedRequest `json:"head,omitempty"`

	// Callback and CallbackVar are as in [Upload].
	Callback    json.RawMessage `json:"callback"`
	CallbackVar json.RawMessage `json:"callback_var"`

	// Bound is what ExpiresAt follows from.
	Bound oss.Bound `json:"-"`
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

func presigned(s oss.Signed) PresignedRequest {
	return PresignedRequest{Method: s.Method, URL: s.URL, Headers: s.Headers}
}

// maxManifest bounds what is read as a manifest, in bytes. One of ten thousand parts
// with the longest key takes half of it.
const maxManifest = 64 << 20

// ErrManifest means that what was read is no manifest of a multipart upload.
var ErrManifest = errors.New("no manifest of a multipart upload")

// ReadManifest reads the JSON of a [Multipart]. Fields that it does not know are passed
// over. The error wraps ErrManifest, or is about reading.
func ReadManifest(r io.Reader) (Multipart, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxManifest+1))
	if err != nil {
		return Multipart{}, fmt.Errorf("read manifest: %w", err)
	}
	if len(text) > maxManifest {
		return Multipart{}, fmt.Errorf("%w: it is longer than any", ErrManifest)
	}
	document := struct {
		Multipart
		URL string `json:"url"`
	}{}
	err = json.Unmarshal(text, &document)
	m := document.Multipart
	switch {
	case err != nil:
		return Multipart{}, fmt.Errorf("%w: %w", ErrManifest, err)
	case document.URL != "" && m.Parts == nil:
		return Multipart{}, fmt.Errorf("%w: it is an upload by one PUT, which is complete by itself", ErrManifest)
	case m.Bucket == "" || m.Key == "" || m.OSSUploadID == "" || len(m.Parts) == 0:
		return Multipart{}, fmt.Errorf("%w: it has no bucket, key, oss_upload_id or parts", ErrManifest)
	}
	for i, part := range m.Parts {
		if int(part.Number) != i+1 {
			return Multipart{}, fmt.Errorf("%w: its part %d has the number %d", ErrManifest, i+1, part.Number)
		}
	}
	if _, err := m.completion(); err != nil {
		return Multipart{}, err
	}
	return m, nil
}
