package notify

import (
	"cmp"
	"encoding/json"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"upcall/internal/callbackspec"
	"upcall/internal/event"
)

// A happening is what one event of OSS tells.
type happening struct {
	event event.Event
	vars  callbackspec.Vars // by name with x:, the upload token among them
}

// operations are the events that count, by their names. Those of parts, copies and appends tell
// of no upload that a callback would tell of, and that of an aborted multipart upload of no
// object that is gone.
var operations = map[string]bool{ // whether they create
	"ObjectCreated:PutObject":               true,
	"ObjectCreated:PostObject":              true,
	"ObjectCreated:CompleteMultipartUpload": true,
	"ObjectRemoved:DeleteObject":            false,
	"ObjectRemoved:DeleteObjects":           false,
}

// Limits on texts, in bytes. OSS's keys have up to 1023, and the others far less.
const (
	maxKey  = 1023
	maxText = 256
)

// readMessage returns what a message tells, and how many of its events are ignored, because
// they are of another kind. A message is what OSS publishes, or an event of EventBridge, or
// an array of such.
//
// Source: "Configure event notification rules" in the OSS documentation (2021-03 and 2025), "OSS
// events" in that of EventBridge (2026-03), and captures.
func readMessage(message string) (told []*happening, ignored int, err error) {
	if strings.HasPrefix(strings.TrimLeft(message, blanks), "[") {
		return readEach("the batch", message, readCloudEvent)
	}
	members, err := object("the message", message)
	if err != nil {
		return nil, 0, err
	}
	switch events, several := members["events"]; {
	case members["specversion"] != "":
		return readEach("the message", "["+message+"]", readCloudEvent)
	case !several:
		return nil, 0, malformed("the message has neither events nor a specversion")
	default:
		return readEach("events", events, func(doc string) (*happening, error) { return readEvent(doc, nil) })
	}
}

const blanks = " \t\r\n"

func readEach(what, list string, read func(doc string) (*happening, error)) (told []*happening, ignored int, err error) {
	var elements []json.RawMessage
	if json.Unmarshal([]byte(list), &elements) != nil || elements == nil {
		return nil, 0, malformed("%s is no array", what)
	}
	for _, element := range elements {
		h, err := read(string(element))
		switch {
		case err != nil:
			return nil, 0, err
		case h == nil:
			ignored++
		default:
			told = append(told, h)
		}
	}
	return told, ignored, nil
}

// readCloudEvent reads an event as EventBridge sends it: that of OSS is its data, perhaps
// without what the CloudEvent says itself.
func readCloudEvent(doc string) (*happening, error) {
	members, err := object("the event", doc)
	if err != nil {
		return nil, err
	}
	kind, err := text("type", members["type"])
	if err != nil {
		return nil, err
	}
	name, ofOSS := strings.CutPrefix(kind, "oss:")
	if !ofOSS {
		return nil, nil
	}
	quoted := string(callbackspec.AppendQuoted(nil, name))
	return readEvent(members["data"], map[string]string{"eventName": quoted, "eventTime": members["time"]})
}

// readEvent reads an event of OSS, and takes what it lacks from defaults. It returns nil if the
// event is of another kind.
func readEvent(doc string, defaults map[string]string) (*happening, error) {
	members, err := object("an event", doc)
	if err != nil {
		return nil, err
	}
	for name, raw := range defaults {
		members[name] = cmp.Or(members[name], raw)
	}
	name, err := text("eventName", members["eventName"])
	if err != nil {
		return nil, err
	}
	creates, counts := operations[name]
	if !counts {
		return nil, nil
	}
	h := &happening{event: event.Event{Source: event.SourceNotification}}
	var mistake error
	r := reader{members, &mistake}
	oss := r.object("oss")
	stored := oss.object("object")
	c := &h.event.Callback
	_, c.Operation, _ = strings.Cut(name, ":")
	c.Bucket = oss.object("bucket").text("name", maxText)
	c.Object = stored.text("key", maxKey)
	c.ETag = strings.Trim(stored.text("eTag", maxText), `"`)
	c.RequestID = r.object("responseElements").text("requestId", maxText)
	c.ClientIP = address(r.object("requestParameters").text("sourceIPAddress", maxText))
	h.event.ReceivedAt = r.time("eventTime")
	if creates {
		c.Size = stored.size("size")
		c.MimeType = stored.object("objectMeta").text("mimeType", maxText)
		// The documents do not agree where they are: beside oss, or inside it.
		h.vars = make(callbackspec.Vars)
		r.vars("xVars", h.vars)
		oss.vars("xVars", h.vars)
	}
	switch {
	case mistake != nil:
		return nil, mistake
	case c.Bucket == "" || c.Object == "":
		return nil, malformed("an event names no bucket or no key")
	case c.RequestID == "" && c.ETag == "":
		return nil, malformed("an event has neither a request id nor an ETag")
	}
	h.event.ID = event.RecoveredID(h.event.Source, c.Bucket, c.Object, c.RequestID, c.ETag, h.event.ReceivedAt)
	return h, nil
}

// A reader reads the members of an object of an event. A member that is missing or null is a
// zero value.
type reader struct {
	members map[string]string
	mistake *error // the first one, shared by all readers of the event
}

func (r reader) note(err error) {
	if *r.mistake == nil {
		*r.mistake = err
	}
}

func (r reader) has(name string) bool { return r.members[name] != "" && r.members[name] != "null" }

func (r reader) object(name string) reader {
	inner := reader{nil, r.mistake}
	if r.has(name) {
		var err error
		if inner.members, err = object(name, r.members[name]); err != nil {
			r.note(err)
		}
	}
	return inner
}

func (r reader) text(name string, most int) string {
	value, err := text(name, r.members[name])
	switch {
	case err != nil:
		r.note(err)
	case len(value) > most:
		r.note(malformed("%s is longer than %d bytes", name, most))
	default:
		return value
	}
	return ""
}

func (r reader) size(name string) *int64 {
	if !r.has(name) {
		return nil
	}
	n, err := strconv.ParseInt(r.members[name], 10, 64)
	if err != nil || n < 0 {
		r.note(malformed("%s is no size", name))
	}
	return &n
}

func (r reader) time(name string) time.Time {
	at, err := time.Parse(time.RFC3339, r.text(name, maxText))
	if err != nil {
		r.note(malformed("%s is no time as 2026-11-22T12:00:00.000Z", name))
	}
	return at.UTC()
}

// vars adds variables to those of another place. What is no text counts as written, and for
// the upload token to judge.
func (r reader) vars(name string, to callbackspec.Vars) {
	for name, raw := range r.object(name).members {
		value := raw
		if raw[0] == '"' {
			_ = json.Unmarshal([]byte(raw), &value) // it is valid
		}
		if other, twice := to[name]; twice && other != value {
			r.note(malformed("a variable of xVars has two values"))
		}
		to[name] = value
	}
}

// address returns what text says if it is an address; a service of Alibaba Cloud may have another name.
func address(text string) netip.Addr {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap().WithZone("")
}
