package spool

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"upcall/internal/callbackspec"
	"upcall/internal/eventstore"
)

// A record is an event on disk. Its names are a format: old files have them.
//
// The upload token is left out: it was checked, PostgreSQL does not keep it either, and
// a file on disk should not let anyone send callbacks.
type record struct {
	ID         uuid.UUID     `json:"id"`
	ReceivedAt time.Time     `json:"received_at"` // when it arrived, not when it was spooled
	UploadID   uuid.NullUUID `json:"upload_id"`
	Source     string        `json:"source,omitempty"`
	SourceAddr netip.Addr    `json:"source_addr,omitzero"`

	Bucket      string                     `json:"bucket,omitempty"`
	Object      string                     `json:"object,omitempty"`
	ETag        string                     `json:"etag,omitempty"`
	Size        *int64                     `json:"size,omitempty"`
	MimeType    string                     `json:"mime_type,omitempty"`
	ImageHeight *int32                     `json:"image_height,omitempty"`
	ImageWidth  *int32                     `json:"image_width,omitempty"`
	ImageFormat string                     `json:"image_format,omitempty"`
	CRC64       *uint64                    `json:"crc64,omitempty"`
	ContentMD5  string                     `json:"content_md5,omitempty"`
	VPCID       string                     `json:"vpc_id,omitempty"`
	ClientIP    netip.Addr                 `json:"client_ip,omitzero"`
	RequestID   string                     `json:"request_id,omitempty"`
	Operation   string                     `json:"operation,omitempty"`
	Vars        map[string]json.RawMessage `json:"vars,omitempty"`

	Rejected *rejection `json:"rejected,omitempty"` // nil while the event waits
}

// A rejection is why PostgreSQL did not take an event.
type rejection struct {
	At     time.Time `json:"at"`
	Reason string    `json:"reason"`
}

func newRecord(e *eventstore.Event) *record {
	c := &e.Callback
	return &record{
		ID: e.ID, ReceivedAt: e.ReceivedAt, UploadID: e.UploadID, Source: e.Source, SourceAddr: e.SourceAddr,
		Bucket: c.Bucket, Object: c.Object, ETag: c.ETag, Size: c.Size, MimeType: c.MimeType,
		ImageHeight: c.ImageHeight, ImageWidth: c.ImageWidth, ImageFormat: c.ImageFormat,
		CRC64: c.CRC64, ContentMD5: c.ContentMD5, VPCID: c.VPCID, ClientIP: c.ClientIP,
		RequestID: c.RequestID, Operation: c.Operation, Vars: c.Vars,
	}
}

func (r *record) event() eventstore.Event {
	return eventstore.Event{
		Acknowledged: true,
		ID:           r.ID, ReceivedAt: r.ReceivedAt, UploadID: r.UploadID, Source: r.Source, SourceAddr: r.SourceAddr,
		Callback: callbackspec.Callback{
			Bucket: r.Bucket, Object: r.Object, ETag: r.ETag, Size: r.Size, MimeType: r.MimeType,
			ImageHeight: r.ImageHeight, ImageWidth: r.ImageWidth, ImageFormat: r.ImageFormat,
			CRC64: r.CRC64, ContentMD5: r.ContentMD5, VPCID: r.VPCID, ClientIP: r.ClientIP,
			RequestID: r.RequestID, Operation: r.Operation, Vars: r.Vars,
		},
	}
}

// A frame is magic, length and CRC-32C of the payload, which is the record as JSON. The
// last byte of the magic is the format's version.
const (
	magic      = "\xc5UPCALL\x01"
	headerSize = len(magic) + 8
	maxPayload = 4 << 20 // a callback is far smaller
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode returns the record's frame. An error wraps eventstore.ErrRejected.
func encode(r *record) ([]byte, error) {
	// JSON would put something else in place of what is not UTF-8.
	for _, text := range [...]string{r.Source, r.Bucket, r.Object, r.ETag, r.MimeType, r.ImageFormat,
		r.ContentMD5, r.VPCID, r.RequestID, r.Operation} {
		if !utf8.ValidString(text) || strings.IndexByte(text, 0) >= 0 {
			return nil, fmt.Errorf("%w: a text is not UTF-8, or holds NUL", eventstore.ErrRejected)
		}
	}
	payload, err := json.Marshal(r)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: a variable is not JSON", eventstore.ErrRejected)
	case !utf8.Valid(payload):
		return nil, fmt.Errorf("%w: a variable is not UTF-8", eventstore.ErrRejected)
	case len(payload) > maxPayload:
		return nil, fmt.Errorf("%w: it has more than %d bytes", eventstore.ErrRejected, maxPayload)
	}
	frame := make([]byte, 0, headerSize+len(payload))
	frame = append(frame, magic...)
	frame = binary.BigEndian.AppendUint32(frame, uint32(len(payload)))
	frame = binary.BigEndian.AppendUint32(frame, crc32.Checksum(payload, castagnoli))
	return append(frame, payload...), nil
}

// frameSize returns the size of the frame that starts with these bytes, or 0 if none does.
func frameSize(header []byte) int {
	if len(header) < headerSize || string(header[:len(magic)]) != magic {
		return 0
	}
	n := binary.BigEndian.Uint32(header[len(magic):])
	if n > maxPayload {
		return 0
	}
	return headerSize + int(n)
}

// decode reads a frame that is exactly this long. The record refers to none of its bytes.
func decode(frame []byte) (*record, error) {
	if len(frame) == 0 || frameSize(frame) != len(frame) {
		return nil, errors.New("a record has the wrong length, or is of another version")
	}
	payload := frame[headerSize:]
	if crc32.Checksum(payload, castagnoli) != binary.BigEndian.Uint32(frame[len(magic)+4:]) {
		return nil, errors.New("a record has another checksum")
	}
	r := new(record)
	if err := json.Unmarshal(payload, r); err != nil {
		return nil, fmt.Errorf("decode record: %w", err)
	}
	return r, nil
}
