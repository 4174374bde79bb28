package kept

import (
	"encoding/json"
	"net/netip"
	"time"

	"github.com/google/uuid"

	"upcall/internal/event"
)

// An Entry is a callback in a spool or a stream, for display.
type Entry struct {
	ID         uuid.UUID
	ReceivedAt time.Time
	Bucket     string
	Object     string
	Reason     string // why it is a dead letter; "" while it waits
	JSON       []byte `json:"-"` // the whole record, on one line
}

// Show returns the entry for a frame. The error says that the frame is not intact.
func Show(frame []byte) (Entry, error) {
	h, err := Check(frame)
	if err != nil {
		return Entry{}, err
	}
	e := Entry{ID: h.ID, ReceivedAt: h.ReceivedAt}
	if h.Dead {
		e.Reason = event.ErrUnstorable.Error()
	}
	r, err := Decode(frame)
	if err == nil {
		e.Bucket, e.Object = r.Callback.Bucket, r.Callback.Object
		if r.Dead != nil {
			e.Reason = r.Dead.Reason
		}
		e.JSON, err = r.line()
	}
	if err != nil { // intact, but not for this program
		e.Reason = err.Error()
		e.JSON, err = json.Marshal(struct {
			ID         uuid.UUID         `json:"id"`
			ReceivedAt time.Time         `json:"received_at"`
			Record     []byte            `json:"record"`
			Rejected   map[string]string `json:"rejected"`
		}{h.ID, h.ReceivedAt, frame[HeaderSize+HeadSize:], map[string]string{"reason": e.Reason}})
	}
	return e, err
}

// line returns the event's JSON with more members at its end. Scripts may read the members
// id and object, which are older than the event's own JSON.
func (r *Record) line() ([]byte, error) {
	line, err := r.AppendJSON(nil)
	if err != nil {
		return nil, err
	}
	more, err := json.Marshal(struct {
		ID         uuid.UUID   `json:"id"`
		Object     string      `json:"object,omitempty"`
		SourceAddr netip.Addr  `json:"source_addr,omitzero"`
		Rejected   *DeadLetter `json:"rejected,omitempty"`
	}{r.ID, r.Callback.Object, r.SourceAddr, r.Dead})
	if err != nil {
		return nil, err
	}
	return append(append(line[:len(line)-1], ','), more[1:]...), nil
}
