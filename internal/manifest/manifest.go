// Package manifest is the JSON that an issuer hands to an uploader, with its one reader
// and its one set of checks: a presigned PUT, or every presigned request of a multipart
// upload.
package manifest

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"upcall/internal/callbackspec"
)

// A Manifest allows one upload. Exactly one of its fields is set.
type Manifest struct {
	Put       *Upload    // what `issuer put --format json` prints
	Multipart *Multipart // what `issuer multipart create` prints
}

// An Upload is an upload by one PUT. Its JSON is what `issuer put --format json` prints.
type Upload struct {
	ID        uuid.UUID `json:"upload_id"`
	Bucket    string    `json:"bucket"` // "" in older manifests, as Key
	Key       string    `json:"key"`
	Method    string    `json:"method"`
	URL       string    `json:"url"`
	ExpiresAt time.Time `json:"expires_at"` // RFC 3339, UTC, whole seconds

	// Headers are all that the uploader must send, by lower-case names.
	Headers map[string]string `json:"headers"`

	// Callback and CallbackVar are the two documents as OSS reads them. Without a callback
	// both are null. CallbackVar is also null if there are neither variables nor a token.
	Callback    json.RawMessage `json:"callback"`
	CallbackVar json.RawMessage `json:"callback_var"`
}

// Request returns the PUT.
func (u Upload) Request() PresignedRequest {
	return PresignedRequest{Method: u.Method, URL: u.URL, Headers: u.Headers}
}

// A Multipart is a multipart upload that was initiated: all that an uploader without
// credentials needs to store an object in parts, to resume after an interruption, to complete the
// upload or to abort it. Its JSON is what `issuer multipart create` prints.
type Multipart struct {
	ID          uuid.UUID `json:"upload_id"` // ours, the one in the token
	Bucket      string    `json:"bucket"`
	Key         string    `json:"key"`
	OSSUploadID string    `json:"oss_upload_id"`
	Size        *int64    `json:"size"`       // bytes of the whole object; null if only the parts were counted
	PartSize    int64     `json:"part_size"`  // bytes of each part but the last
	ExpiresAt   time.Time `json:"expires_at"` // of every URL below: RFC 3339, UTC, whole seconds

	// Parts are in order, from number 1, without a gap. If size is null, an object that
	// needs fewer leaves the rest out.
	Parts []Part `json:"parts"`

	// Complete completes the upload. Its body is the CompleteMultipartUpload document with
	// the ETag of each part. OSS calls back after this request and no other.
	Complete PresignedRequest `json:"complete"`

	Abort PresignedRequest `json:"abort"`

	// ListParts lists the first thousand of the parts that OSS has. If there may be more,
	// ListPartsNext lists the first thousand after number 1000, after 2000 and so on. If
	// numbers are missing, a part may be in two lists.
	ListParts     PresignedRequest   `json:"list_parts"`
	ListPartsNext []PresignedRequest `json:"list_parts_next,omitempty"`

	// Head asks for the object's size and CRC-64, without its content. It shows whether the
	// upload was completed if that answer was lost. Older manifests have none.
	Head *PresignedRequest `json:"head,omitempty"`

	// Callback and CallbackVar are as in [Upload].
	Callback    json.RawMessage `json:"callback"`
	CallbackVar json.RawMessage `json:"callback_var"`
}

// A Part is one part's upload.
type Part struct {
	Number int32  `json:"number"` // 1 to 10,000
	Size   *int64 `json:"size"`   // exact size in bytes; null if the whole size is not known
	PresignedRequest
}

// A PresignedRequest may be sent by anyone who has it until it expires.
type PresignedRequest struct {
	Method  string            `json:"method"`
	URL     string            `json:"url"`
	Headers map[string]string `json:"headers"` // to be sent unchanged, by lower-case names; never null
}

// Lists returns the requests that list the parts that OSS has.
func (m *Multipart) Lists() []PresignedRequest {
	return append([]PresignedRequest{m.ListParts}, m.ListPartsNext...)
}

// A Form is an upload by an HTML form. Its JSON is what `issuer form` prints.
type Form struct {
	ID        uuid.UUID `json:"upload_id"`
	Bucket    string    `json:"bucket"`
	Key       string    `json:"key,omitempty"`        // either the object key
	KeyPrefix string    `json:"key_prefix,omitempty"` // or what every key begins with; the file's name follows
	Method    string    `json:"method"`
	URL       string    `json:"url"`
	ExpiresAt time.Time `json:"expires_at"` // RFC 3339, UTC, whole seconds
	MinSize   int64     `json:"min_size"`   // bytes that OSS accepts
	MaxSize   int64     `json:"max_size"`

	// Fields are all that is to be sent before the file, which is the last field and has the name file.
	Fields map[string]string `json:"fields"`

	// Callback and CallbackVar are as in [Upload].
	Callback    json.RawMessage `json:"callback"`
	CallbackVar json.RawMessage `json:"callback_var"`
}

// CallbackDocuments returns Callback and CallbackVar, ready to be sent again. The error wraps
// ErrManifest.
func (m *Multipart) CallbackDocuments() (callback, vars callbackspec.Document, err error) {
	if present(m.Callback) {
		callback, err = callbackspec.ReadDocument("callback", m.Callback)
	} else if present(m.CallbackVar) {
		return callback, vars, badManifest("it has variables of a callback, but no callback")
	}
	if err == nil && present(m.CallbackVar) {
		vars, err = callbackspec.ReadDocument("callback_var", m.CallbackVar)
	}
	if err != nil {
		err = badManifest("%w", err)
	}
	return callback, vars, err
}

// present reports whether there is a document. null is how JSON says that there is none.
func present(document json.RawMessage) bool {
	return len(document) > 0 && string(document) != "null"
}
