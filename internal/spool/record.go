package spool

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

// A record is an event on disk.
//
// The upload token is left out: it was checked, PostgreSQL does not keep it either, and
// people who can read the file must not be able to send callbacks.
type record struct {
	event.Event
	dead *deadLetter // nil while the event waits
}

// A deadLetter is why an event could not be moved.
type deadLetter struct {
	At     time.Time `json:"at"`
	Reason string    `json:"reason"`
}

// extras are behind the event in a record's JSON. Their names are part of the file format.
type extras struct {
	SourceAddr netip.Addr  `json:"source_addr"`
	Dead       *deadLetter `json:"dead_letter"`
}

// A frame is magic, version, length and CRC-32C of the payload, and the payload: the fields
// of a head, and the record as JSON. Numbers are big endian.
const (
	magic      = "\xc5UPCALL"
	version    = 2 // version 1 can be read, too
	headerSize = len(magic) + 1 + 8
	headSize   = 16 + 8 + 1
	maxPayload = 4 << 20 // a callback is far smaller
)

// A head is what opening a spool reads of each record, without parsing its JSON.
type head struct {
	id         uuid.UUID
	receivedAt time.Time // in the frame: nanoseconds since 1970
	dead       bool      // in the frame: 1 or 0
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode returns the record's frame. An error wraps event.ErrUnstorable.
func encode(r *record) ([]byte, error) {
	frame := append(append(make([]byte, 0, 1024), magic...), version)
	frame = append(frame, make([]byte, 8)...) // length and checksum
	frame = append(frame, r.ID[:]...)
	frame = binary.BigEndian.AppendUint64(frame, uint64(r.ReceivedAt.UnixNano()))
	if r.dead == nil {
		frame = append(frame, 0)
	} else {
		frame = append(frame, 1)
	}
	frame, err := r.AppendJSON(append(frame, `{"event":`...))
	if err != nil {
		return nil, err
	}
	more, err := json.Marshal(extras{r.SourceAddr, r.dead})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", event.ErrUnstorable, err)
	}
	frame = append(append(frame, ','), more[1:]...)
	payload := frame[headerSize:]
	if len(payload) > maxPayload {
		return nil, fmt.Errorf("%w: it has more than %d bytes", event.ErrUnstorable, maxPayload)
	}
	binary.BigEndian.PutUint32(frame[headerSize-8:], uint32(len(payload)))
	binary.BigEndian.PutUint32(frame[headerSize-4:], crc32.Checksum(payload, castagnoli))
	return frame, nil
}

// frameSize returns the size of the frame that starts with these bytes, or 0 if none does.
func frameSize(header []byte) int {
	if len(header) < headerSize || string(header[:len(magic)]) != magic {
		return 0
	}
	v, n := header[len(magic)], binary.BigEndian.Uint32(header[headerSize-8:])
	if v < 1 || v > version || n > maxPayload {
		return 0
	}
	return headerSize + int(n)
}

// check verifies a complete frame and returns its head.
func check(frame []byte) (head, error) {
	if len(frame) < headerSize+headSize || frameSize(frame) != len(frame) {
		return head{}, errors.New("a record has the wrong length, or is of another version")
	}
	payload := frame[headerSize:]
	if crc32.Checksum(payload, castagnoli) != binary.BigEndian.Uint32(frame[headerSize-4:]) {
		return head{}, errors.New("a record has the wrong checksum")
	}
	return head{
		id:         uuid.UUID(payload[:16]),
		receivedAt: time.Unix(0, int64(binary.BigEndian.Uint64(payload[16:]))).UTC(),
		dead:       payload[24] == 1,
	}, nil
}

// flagged returns the frame with the same content as a dead letter, or as a record that waits.
func flagged(frame []byte, dead bool) []byte {
	frame = bytes.Clone(frame)
	payload := frame[headerSize:]
	payload[headSize-1] = 0
	if dead {
		payload[headSize-1] = 1
	}
	binary.BigEndian.PutUint32(frame[headerSize-4:], crc32.Checksum(payload, castagnoli))
	return frame
}

// decode reads a frame. The record does not refer to the frame's bytes.
func decode(frame []byte) (*record, error) {
	h, err := check(frame)
	if err != nil {
		return nil, err
	}
	text, read := frame[headerSize+headSize:], decodeVersion2
	if frame[len(magic)] == 1 {
		read = decodeVersion1
	}
	r, err := read(text)
	if err == nil && r.ID != h.id {
		err = fmt.Errorf("it is of event %s", r.ID)
	}
	if err != nil {
		return nil, fmt.Errorf("decode record: %w", err)
	}
	r.Acknowledged = true
	return r, nil
}

func decodeVersion2(text []byte) (*record, error) {
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
	return &record{*e, content.Dead}, nil
}

// decodeVersion1 reads the older JSON, which only spools had: it leaves out members that are
// null, and its crc64 is a number.
func decodeVersion1(text []byte) (*record, error) {
	var members map[string]json.RawMessage
	r := new(record)
	fields := map[string]any{"source_addr": &r.SourceAddr, "rejected": &r.dead}
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
