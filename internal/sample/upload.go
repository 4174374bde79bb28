package sample

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"github.com/google/uuid"

	"upcall/internal/callbackspec"
	"upcall/internal/event"
	"upcall/internal/eventstore"
)

// A maker makes the rows of one database.
type maker struct {
	seed     uint64
	events   int
	users    int
	until    time.Time
	calendar calendar
}

func newMaker(seed uint64, events int, until time.Time) *maker {
	until = until.UTC().Truncate(time.Microsecond)
	return &maker{seed: seed, events: events, users: max(20, events/50), until: until, calendar: newCalendar(until)}
}

// A kind is what is special about an event.
type kind int

const (
	plain   kind = iota
	again        // the URL of the upload before was used once more
	told         // a notification of the upload before, whose callback came, too
	foreign      // of an upload that we did not issue
	bare         // foreign, and its callback says nearly nothing
)

// kind returns the kind of event i. What refers to the event before refers to a plain one.
func (m *maker) kind(r *rand.Rand, i int) kind {
	at := r.Float64()
	switch {
	case at < 0.003 && i > 0 && m.kind(m.draw(i-1, drawEvent), i-1) == plain:
		if at < 0.001 {
			return told
		}
		return again
	case at >= 0.003 && at < 0.033:
		return foreign
	case at >= 0.033 && at < 0.0333:
		return bare
	}
	return plain
}

// A row is an event with what belongs to it.
type row struct {
	event   event.Event
	issued  *eventstore.IssuedUpload // nil if there is none, or it belongs to another event
	revoked time.Time                // zero if it was not
	late    int                      // how many events are recorded before it that came later
}

// row returns event i.
func (m *maker) row(i int) row {
	r := m.draw(i, drawEvent)
	switch k := m.kind(r, i); k {
	case plain:
		return m.upload(r, i)
	case again, told:
		e := m.row(i - 1).event
		if k == told && e.Source != event.SourceCallback {
			return m.upload(r, i)
		}
		e.ID = id(r)
		if k == told {
			e.ReceivedAt = e.ReceivedAt.Add(-milliseconds(r, 90, 0.4))
			notified(&e, event.SourceNotification)
		} else {
			e.Source, e.ReceivedAt = event.SourceCallback, m.before(e.ReceivedAt.Add(milliseconds(r, 60_000, 1)))
			e.Callback.RequestID = requestID(r, e.ReceivedAt)
			setContent(&e.Callback, m.object(i-1), m.content(i, m.object(i-1)))
		}
		return row{event: e}
	default:
		got := m.upload(r, i)
		e := &got.event
		e.UploadID, e.Callback.Vars = uuid.NullUUID{}, map[string]json.RawMessage{}
		e.Callback.Object = strings.Replace(e.Callback.Object, "/", "/legacy/", 1)
		e.Callback.CRC64, e.Callback.MimeType = nil, ""
		if r.IntN(2) == 0 {
			e.Callback.Size = nil
		}
		if k == bare {
			e.Callback = callbackspec.Callback{RequestID: e.Callback.RequestID, Vars: map[string]json.RawMessage{}}
		}
		return row{event: *e}
	}
}

// upload returns the event of an upload that we issued.
func (m *maker) upload(r *rand.Rand, i int) row {
	at := m.calendar.at((float64(i) + r.Float64()) / float64(m.events))
	o := m.object(i)
	c := m.content(i, o)
	waited := milliseconds(r, 2500, 1.2) + time.Duration(float64(c.size)/4e6*float64(time.Second))
	issued := m.issue(r, o, at.Add(-min(waited, 55*time.Minute)).Truncate(time.Microsecond))
	if size := c.size; r.Float64() < 0.8 {
		issued.Size = &size
	}
	got := row{issued: issued, event: event.Event{
		ID: id(r), ReceivedAt: at, UploadID: uuid.NullUUID{UUID: issued.ID, Valid: true}, Source: event.SourceCallback,
		Callback: callbackspec.Callback{
			Bucket: o.shelf.bucket, Object: o.key, ClientIP: address(r), RequestID: requestID(r, at), Vars: raw(issued.Vars),
		},
	}}
	e := &got.event
	if r.Float64() < 0.02 {
		e.Callback.VPCID = "vpc-bp1" + strings.ToLower(text(r, 9))
	}
	setContent(&e.Callback, o, c)
	if multipart(c) {
		issued.OSSUploadID = text(r, 16)
	} else if r.Float64() < 0.15 {
		e.Callback.Operation = "PostObject"
	}
	// On some days many callbacks are lost.
	lost := 0.004
	if day := int(at.Sub(m.calendar.begins) / (24 * time.Hour)); day%73 == 40 {
		lost = 0.06
	}
	switch at := r.Float64(); {
	case at < lost*0.8:
		notified(e, event.SourceNotification)
	case at < lost:
		notified(e, event.SourceReconcile)
	case at < lost+0.003:
		// It waited in a spool, for two hours or so.
		got.late = 1 + int(r.ExpFloat64()*float64(m.events)/4380)
	}
	if r.Float64() < 0.001 {
		got.revoked = m.before(at.Add(milliseconds(r, 3.6e6, 1)))
	}
	return got
}

// setContent sets what a callback says of the content.
func setContent(cb *callbackspec.Callback, o object, c content) {
	cb.Size, cb.CRC64, cb.MimeType, cb.Operation = new(c.size), new(c.crc64), o.form.mime, "PutObject"
	cb.ETag, cb.ContentMD5 = strings.ToUpper(hex.EncodeToString(c.md5[:])), base64.StdEncoding.EncodeToString(c.md5[:])
	if multipart(c) {
		cb.Operation, cb.ContentMD5 = "CompleteMultipartUpload", ""
		cb.ETag += fmt.Sprintf("-%d", 1+c.size/partSize)
	}
	if o.form.image != "" {
		cb.ImageWidth, cb.ImageHeight, cb.ImageFormat = new(c.pixels[0]), new(c.pixels[1]), o.form.image
	}
}

// partSize is also the smallest size of what is uploaded in parts.
const partSize = 16 << 20

func multipart(c content) bool { return c.size >= partSize }

// notified makes an event one of another source, which knows less.
func notified(e *event.Event, source event.Source) {
	e.Source = source
	e.Callback.ImageWidth, e.Callback.ImageHeight, e.Callback.ImageFormat = nil, nil, ""
	e.Callback.ContentMD5, e.Callback.VPCID = "", ""
	if source == event.SourceReconcile {
		e.Callback.ClientIP, e.Callback.RequestID, e.Callback.Operation, e.Callback.MimeType = netip.Addr{}, "", "", ""
	}
}

// unused returns an upload that was issued about when event i came, and never used; nil if there is
// none. If it was revoked, the time is not zero.
func (m *maker) unused(i int) (*eventstore.IssuedUpload, time.Time) {
	r := m.draw(i, drawUnused)
	if r.Float64() >= 0.08 {
		return nil, time.Time{}
	}
	at := m.calendar.at((float64(i) + r.Float64()) / float64(m.events))
	issued := m.issue(r, m.newObject(r, i), at.Add(-milliseconds(r, 5000, 1)).Truncate(time.Microsecond))
	revoked := time.Time{}
	if r.Float64() < 0.05 {
		revoked = m.before(issued.IssuedAt.Add(milliseconds(r, 3e5, 1)))
	}
	return issued, revoked
}

// before returns a time that is not after the year.
func (m *maker) before(t time.Time) time.Time {
	if t.After(m.until) {
		return m.until
	}
	return t
}

// clients are API keys of applications.
var clients = []struct {
	key     string
	share   float64
	expires time.Duration
}{{"web", 0.5, time.Hour}, {"mobile", 0.33, 24 * time.Hour}, {"import", 0.12, 7 * 24 * time.Hour}, {"", 0.05, time.Hour}}

// issue returns an upload that was issued for an object.
func (m *maker) issue(r *rand.Rand, o object, at time.Time) *eventstore.IssuedUpload {
	k := 0
	for at := r.Float64(); k < len(clients)-1 && at >= clients[k].share; k++ {
		at -= clients[k].share
	}
	issued := &eventstore.IssuedUpload{
		ID: timeID(r, at), IssuedAt: at, ExpiresAt: at.Add(clients[k].expires), Bucket: o.shelf.bucket, Object: o.key,
		APIKeyID: clients[k].key, Vars: map[string]string{"uid": fmt.Sprintf("u%06d", o.user)},
	}
	if r.Float64() < 0.9 {
		issued.ContentType = o.form.mime
	}
	if o.shelf.folder == "photos" {
		issued.Vars["album"] = albums[r.IntN(len(albums))]
	}
	return issued
}

var albums = []string{"camera", "家庭", "春节 2026", "work", "Übersicht", "trip", "receipts", "宝宝"}

// raw returns variables as a callback has them.
func raw(vars map[string]string) map[string]json.RawMessage {
	got := make(map[string]json.RawMessage, len(vars))
	for name, value := range vars {
		got[name], _ = json.Marshal(value) // texts can always be marshaled
	}
	return got
}

// id returns an id that looks like a digest.
func id(r *rand.Rand) (id uuid.UUID) {
	binary.BigEndian.PutUint64(id[:], r.Uint64())
	binary.BigEndian.PutUint64(id[8:], r.Uint64())
	return id
}

// timeID returns a version 7 UUID like the issuer's.
func timeID(r *rand.Rand, at time.Time) uuid.UUID {
	id := id(r)
	ms := uint64(at.UnixMilli())
	binary.BigEndian.PutUint64(id[:], ms<<16|uint64(id[6])<<8|uint64(id[7]))
	id[6], id[8] = id[6]&0x0f|0x70, id[8]&0x3f|0x80
	return id
}

// requestID returns a request id as OSS makes them: the second, and 16 hexadecimal digits.
func requestID(r *rand.Rand, at time.Time) string {
	return fmt.Sprintf("%08X%016X", at.Unix(), r.Uint64())
}

// text returns hexadecimal digits of n bytes.
func text(r *rand.Rand, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return strings.ToUpper(hex.EncodeToString(b))
}

// address returns one of the addresses that are reserved for documentation.
func address(r *rand.Rand) netip.Addr {
	nets := [][3]byte{{192, 0, 2}, {198, 51, 100}, {203, 0, 113}}
	n := r.IntN(5)
	if n < 4 {
		net := nets[n%3]
		return netip.AddrFrom4([4]byte{net[0], net[1], net[2], byte(1 + r.IntN(254))})
	}
	a := [16]byte{0x20, 0x01, 0x0d, 0xb8}
	binary.BigEndian.PutUint32(a[12:], r.Uint32N(1<<20))
	return netip.AddrFrom16(a)
}
