package webhook

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"upcall/internal/callbackspec"
	"upcall/internal/event"
)

// A Kind says what a message is about.
type Kind = event.Kind

const (
	Recorded = event.Recorded
	Disputed = event.Disputed
	Gone     = event.Gone
	Sample   = Kind("test") // not an upload: it was asked for, to try an endpoint
)

// Kinds are those that an endpoint can ask for.
var Kinds = []Kind{Recorded, Disputed, Gone}

// ContentType is that of a delivery (CloudEvents 1.0, HTTP binding, structured mode).
const ContentType = "application/cloudevents+json"

// A Message is what endpoints are told of one entry of the log.
type Message struct {
	ID    uuid.UUID // of the event, or of the finding
	Kind  Kind
	At    time.Time // when the entry was made
	Event *event.Event
	Found json.RawMessage // the finding; nil if Kind is Recorded
}

// NewMessage returns the message that an upload was recorded.
func NewMessage(e *event.Event) *Message {
	return &Message{ID: e.ID, Kind: Recorded, At: e.ReceivedAt, Event: e}
}

// Body returns the message as a CloudEvent, with its members in the order that docs/hooks.md
// shows. The error wraps [event.ErrUnstorable].
func (m *Message) Body() ([]byte, error) {
	dst := make([]byte, 0, 1536)
	dst = append(dst, `{"specversion":"1.0","id":"`...)
	dst = append(dst, m.ID.String()...)
	dst = append(dst, `","source":`...)
	dst = callbackspec.AppendQuoted(dst, "/oss/"+url.PathEscape(m.Event.Callback.Bucket))
	dst = append(dst, `,"type":"`...)
	dst = append(dst, m.eventType()...)
	if key := m.Event.Callback.Object; key != "" {
		dst = append(dst, `","subject":`...)
		dst = callbackspec.AppendQuoted(dst, subject(key))
		dst = append(dst, `,"time":"`...)
	} else {
		dst = append(dst, `","time":"`...)
	}
	dst = m.At.UTC().AppendFormat(dst, "2006-01-02T15:04:05.000000Z")
	dst = append(dst, `","datacontenttype":"application/json","data":`...)
	dst, err := m.Event.AppendJSON(dst)
	if err != nil {
		return nil, fmt.Errorf("encode message %s: %w", m.ID, err)
	}
	if m.Found != nil {
		dst = append(dst[:len(dst)-1], `,"found":`...)
		dst = append(append(dst, m.Found...), '}')
	}
	return append(dst, '}'), nil
}

// eventType returns the type of the CloudEvent.
func (m *Message) eventType() string {
	if m.Kind == Sample {
		return "upcall.test.v1"
	}
	return "upcall.upload." + string(m.Kind) + ".v1"
}

// subject percent-encodes the characters of an object key that no string of a CloudEvent may
// hold (CloudEvents 1.0, "Type system": control characters, and code points that are no
// characters). The key as it is stands in the data.
func subject(key string) string {
	if !strings.ContainsFunc(key, isForbidden) {
		return key
	}
	var escaped strings.Builder
	for _, r := range key {
		if !isForbidden(r) {
			escaped.WriteRune(r)
			continue
		}
		for _, b := range utf8.AppendRune(nil, r) {
			fmt.Fprintf(&escaped, "%%%02X", b)
		}
	}
	return escaped.String()
}

func isForbidden(r rune) bool {
	return unicode.IsControl(r) || r&0xfffe == 0xfffe || r >= 0xfdd0 && r <= 0xfdef
}
