// Package kept has the records in which the spool and the stream keep events until PostgreSQL takes them.
package kept

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"time"

	"github.com/google/uuid"

	"upcall/internal/event"
)

// A Record is an event outside of PostgreSQL.
//
// The upload token is left out: it was checked, PostgreSQL does not keep it either, and
// people who can read the record must not be able to send callbacks.
type Record struct {
	event.Event
	Dead *DeadLetter // nil while the event waits
}

// A DeadLetter is why an event could not be moved.
type DeadLetter struct {
	At     time.Time `json:"at"`
	Reason string    `json:"reason"`
}

// extras are behind the event in a record's JSON. Their names are part of the format.
type extras struct {
	SourceAddr netip.Addr  `json:"source_addr"`
	Dead       *DeadLetter `json:"dead_letter"`
}

// A frame is Magic, version, length and CRC-32C of the payload, and the payload: the fields
// of a Head, and the record as JSON. Numbers are big endian.
const (
	Magic      = "\xc5UPCALL"
	version    = 2 // version 1 can be read, too
	HeaderSize = len(Magic) + 1 + 8
	HeadSize   = 16 + 8 + 1
	MaxPayload = 4 << 20 // a callback is far smaller
)

// A Head is what opening a spool reads of each record, without parsing its JSON.
type Head struct {
	ID         uuid.UUID
	ReceivedAt time.Time // in the frame: nanoseconds since 1970
	Dead       bool      // in the frame: 1 or 0
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode returns the record's frame. An error wraps event.ErrUnstorable.
func Encode(r *Record) ([]byte, error) {
	frame := append(append(make([]byte, 0, 1024), Magic...), version)
	frame = append(frame, make([]byte, 8)...) // length and checksum
	frame = append(frame, r.ID[:]...)
	frame = binary.BigEndian.AppendUint64(frame, uint64(r.ReceivedAt.UnixNano()))
	if r.Dead == nil {
		frame = append(frame, 0)
	} else {
		frame = append(frame, 1)
	}
	frame, err := r.AppendJSON(append(frame, `{"event":`...))
	if err != nil {
		return nil, err
	}
	more, err := json.Marshal(extras{r.SourceAddr, r.Dead})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", event.ErrUnstorable, err)
	}
	frame = append(append(frame, ','), more[1:]...)
	payload := frame[HeaderSize:]
	if len(payload) > MaxPayload {
		return nil, fmt.Errorf("%w: it has more than %d bytes", event.ErrUnstorable, MaxPayload)
	}
	binary.BigEndian.PutUint32(frame[HeaderSize-8:], uint32(len(payload)))
	binary.BigEndian.PutUint32(frame[HeaderSize-4:], crc32.Checksum(payload, castagnoli))
	return frame, nil
}

// Size returns the size of the frame that starts with these bytes, or 0 if none does.
func Size(header []byte) int {
	if len(header) < HeaderSize || string(header[:len(Magic)]) != Magic {
		return 0
	}
	v, n := header[len(Magic)], binary.BigEndian.Uint32(header[HeaderSize-8:])
	if v < 1 || v > version || n > MaxPayload {
		return 0
	}
	return HeaderSize + int(n)
}

// Check verifies a complete frame and returns its head.
func Check(frame []byte) (Head, error) {
	if len(frame) < HeaderSize+HeadSize || Size(frame) != len(frame) {
		return Head{}, errors.New("a record has the wrong length, or is of another version")
	}
	payload := frame[HeaderSize:]
	if crc32.Checksum(payload, castagnoli) != binary.BigEndian.Uint32(frame[HeaderSize-4:]) {
		return Head{}, errors.New("a record has the wrong checksum")
	}
	return Head{
		ID:         uuid.UUID(payload[:16]),
		ReceivedAt: time.Unix(0, int64(binary.BigEndian.Uint64(payload[16:]))).UTC(),
		Dead:       payload[24] == 1,
	}, nil
}

// Flagged returns the frame with the same content as a dead letter, or as a record that waits.
func Flagged(frame []byte, dead bool) []byte {
	frame = bytes.Clone(frame)
	payload := frame[HeaderSize:]
	payload[HeadSize-1] = 0
	if dead {
		payload[HeadSize-1] = 1
	}
	binary.BigEndian.PutUint32(frame[HeaderSize-4:], crc32.Checksum(payload, castagnoli))
	return frame
}

// Decode reads a frame. The record does not refer to the frame's bytes.
func Decode(frame []byte) (*Record, error) {
	h, err := Check(frame)
	if err != nil {
		return nil, err
	}
	text, read := frame[HeaderSize+HeadSize:], decodeVersion2
	if frame[len(Magic)] == 1 {
		read = decodeVersion1
	}
	r, err := read(text)
	if err == nil && r.ID != h.ID {
		err = fmt.Errorf("it is of event %s", r.ID)
	}
	if err != nil {
		return nil, fmt.Errorf("decode record: %w", err)
	}
	r.Acknowledged = true
	return r, nil
}

func decodeVersion2(text []byte) (*Record, error) {
	var content struct {
		Event json.RawMessage `json:"event"`
		extras
	}
	if err := json.Unmarshal(text, &content); err != nil {
		return nil, err
	}
	e, err := event.Parse(content.Event)
	if err != nil {
		return nil, err
	}
	e.SourceAddr = content.SourceAddr
	return &Record{*e, content.Dead}, nil
}

// decodeVersion1 reads the older JSON, which only spools had: it leaves out members that are
// null, and its crc64 is a number.
func decodeVersion1(text []byte) (*Record, error) {
	var members map[string]json.RawMessage
	r := new(Record)
	fields := map[string]any{"source_addr": &r.SourceAddr, "rejected": &r.Dead}
	for _, c := range event.Columns {
		fields[c.Name] = c.Field(&r.Event)
	}
	fields["object"] = fields["object_key"]
	if err := json.Unmarshal(text, &members); err != nil {
		return nil, err
	}
	for name, value := range members {
		if fields[name] == nil {
			return nil, fmt.Errorf("unknown member %q", name)
		}
		if err := json.Unmarshal(value, fields[name]); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return r, nil
}
