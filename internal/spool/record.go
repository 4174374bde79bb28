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
	"upcall/internal/event"
)

// A record is an event on disk. Its names are a format: old files have them.
//
// The upload token is left out: it was checked, PostgreSQL does not keep it either, and
// a file on disk should not let anyone send callbacks.
type record struct {
	ID         uuid.UUID     `json:"id"`
	ReceivedAt time.Time     `json:"received_at"` // when it arrived, not when it was spooled
	UploadID   uuid.NullUUID `json:"upload_id"`
	Source     event.Source  `json:"source,omitempty"`
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

func newRecord(e *event.Event) *record {
	c := &e.Callback
	return &record{
		ID: e.ID, ReceivedAt: e.ReceivedAt, UploadID: e.UploadID, Source: e.Source, SourceAddr: e.SourceAddr,
		Bucket: c.Bucket, Object: c.Object, ETag: c.ETag, Size: c.Size, MimeType: c.MimeType,
		ImageHeight: c.ImageHeight, ImageWidth: c.ImageWidth, ImageFormat: c.ImageFormat,
		CRC64: c.CRC64, ContentMD5: c.ContentMD5, VPCID: c.VPCID, ClientIP: c.ClientIP,
		RequestID: c.RequestID, Operation: c.Operation, Vars: c.Vars,
	}
}

func (r *record) event() event.Event {
	return event.Event{
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

// A frame is magic, length and CRC-32C of the payload, and the payload: what a head says,
// and the record as JSON. The last byte of the magic is the format's version. Numbers are
// big endian.
const (
	magic      = "\xc5UPCALL\x01"
	headerSize = len(magic) + 8
	headSize   = 16 + 8 + 1
	maxPayload = 4 << 20 // a callback is far smaller
)

// A head is what must be known of every record when a spool is opened, without a look at
// its JSON.
type head struct {
	id         uuid.UUID
	receivedAt time.Time // in the frame: nanoseconds since 1970
	rejected   bool      // in the frame: 1 or 0
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode returns the record's frame. An error wraps event.ErrUnstorable.
func encode(r *record) ([]byte, error) {
	// JSON would put something else in place of what is not UTF-8.
	for _, text := range [...]string{string(r.Source), r.Bucket, r.Object, r.ETag, r.MimeType, r.ImageFormat,
		r.ContentMD5, r.VPCID, r.RequestID, r.Operation} {
		if !utf8.ValidString(text) || strings.IndexByte(text, 0) >= 0 {
			return nil, fmt.Errorf("%w: a text is not UTF-8, or holds NUL", event.ErrUnstorable)
		}
	}
	text, err := json.Marshal(r)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: a variable is not JSON", event.ErrUnstorable)
	case !utf8.Valid(text):
		return nil, fmt.Errorf("%w: a variable is not UTF-8", event.ErrUnstorable)
	case headSize+len(text) > maxPayload:
		return nil, fmt.Errorf("%w: it has more than %d bytes", event.ErrUnstorable, maxPayload)
	}
	frame := make([]byte, 0, headerSize+headSize+len(text))
	frame = append(frame, magic...)
	frame = binary.BigEndian.AppendUint32(frame, uint32(headSize+len(text)))
	frame = binary.BigEndian.AppendUint32(frame, 0) // the checksum
	frame = append(frame, r.ID[:]...)
	frame = binary.BigEndian.AppendUint64(frame, uint64(r.ReceivedAt.UnixNano()))
	rejected := byte(0)
	if r.Rejected != nil {
		rejected = 1
	}
	frame = append(append(frame, rejected), text...)
	binary.BigEndian.PutUint32(frame[len(magic)+4:], crc32.Checksum(frame[headerSize:], castagnoli))
	return frame, nil
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

// check reads the head of a frame that is exactly this long, and makes sure of all of it.
func check(frame []byte) (head, error) {
	if len(frame) < headerSize+headSize || frameSize(frame) != len(frame) {
		return head{}, errors.New("a record has the wrong length, or is of another version")
	}
	payload := frame[headerSize:]
	if crc32.Checksum(payload, castagnoli) != binary.BigEndian.Uint32(frame[len(magic)+4:]) {
		return head{}, errors.New("a record has another checksum")
	}
	return head{
		id:         uuid.UUID(payload[:16]),
		receivedAt: time.Unix(0, int64(binary.BigEndian.Uint64(payload[16:]))).UTC(),
		rejected:   payload[24] == 1,
	}, nil
}

// decode reads a frame. The record refers to none of its bytes.
func decode(frame []byte) (*record, error) {
	if _, err := check(frame); err != nil {
		return nil, err
	}
	r := new(record)
	if err := json.Unmarshal(jsonOf(frame), r); err != nil {
		return nil, fmt.Errorf("decode record: %w", err)
	}
	return r, nil
}

// jsonOf returns the JSON in a frame that was checked.
func jsonOf(frame []byte) []byte { return frame[headerSize+headSize:] }
