package feed

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/google/uuid"
)

// ErrCursor says that a text is not a cursor.
var ErrCursor = errors.New("not a cursor")

// A Cursor is a place in the log: between two entries, or before or after all of them. Cursors
// are comparable with ==. The zero value is no place; it is the cursor of nothing.
type Cursor struct {
	system   uint64 // the cluster's system identifier
	timeline uint32 // of its WAL; never 0
	position
}

// A position is a place in the log of one timeline: just after the entry, if there is one.
type position struct {
	xid uint64    // 0 in the part before migration 8
	at  int64     // received_at, in microseconds since 1970; only if xid is 0
	id  uuid.UUID // the zero value is before all entries of that xid or time
}

func (p position) compare(other position) int {
	return cmp.Or(cmp.Compare(p.xid, other.xid), cmp.Compare(p.at, other.at), bytes.Compare(p.id[:], other.id[:]))
}

// textLength is that of a cursor as text.
const textLength = 64

// String returns the cursor as 64 letters, digits, "-" and "_", and "" for the zero value.
func (c Cursor) String() string {
	if c == (Cursor{}) {
		return ""
	}
	b := make([]byte, 0, base64.RawURLEncoding.DecodedLen(textLength))
	b = binary.BigEndian.AppendUint64(b, c.system)
	b = binary.BigEndian.AppendUint32(b, c.timeline)
	b = binary.BigEndian.AppendUint64(b, c.xid)
	b = binary.BigEndian.AppendUint64(b, uint64(c.at))
	b = append(b, c.id[:]...)
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	return base64.RawURLEncoding.EncodeToString(b)
}

// ParseCursor reads what [Cursor.String] returns, and nothing else. The error wraps
// [ErrCursor].
func ParseCursor(text string) (Cursor, error) {
	if len(text) != textLength {
		return Cursor{}, fmt.Errorf("%w: it has %d characters, not %d", ErrCursor, len(text), textLength)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != base64.RawURLEncoding.DecodedLen(textLength) { // the decoder skips ends of lines
		return Cursor{}, fmt.Errorf("%w: it has characters that no cursor has", ErrCursor)
	}
	body := b[:len(b)-4]
	c := Cursor{
		system:   binary.BigEndian.Uint64(body),
		timeline: binary.BigEndian.Uint32(body[8:]),
		position: position{
			xid: binary.BigEndian.Uint64(body[12:]),
			at:  int64(binary.BigEndian.Uint64(body[20:])),
			id:  uuid.UUID(body[28:]),
		},
	}
	// The checksum tells a mistake of copying apart; it is no protection against forgery, which
	// gains nothing: a key may read the whole log.
	if crc32.ChecksumIEEE(body) != binary.BigEndian.Uint32(b[len(body):]) || !c.valid() {
		return Cursor{}, fmt.Errorf("%w: a character is wrong", ErrCursor)
	}
	return c, nil
}

// Covers reports whether a cursor is not before another one of the same cluster, whatever the
// timelines. If both are of entries, and this one was written by a transaction that is in the
// database, the other entry was there when that transaction began: a timeline assigns only
// numbers again that are above those of all transactions that it has.
func (c Cursor) Covers(other Cursor) bool {
	return c.SameSystem(other) && c.compare(other.position) >= 0
}

// Place returns the place in the log: that of an entry, or of one before the log was there, whose xid
// is 0.
func (c Cursor) Place() (xid uint64, at time.Time, id uuid.UUID) {
	return c.xid, time.UnixMicro(c.at).UTC(), c.id
}

// SameSystem reports whether two cursors are of the same cluster.
func (c Cursor) SameSystem(other Cursor) bool { return c.system == other.system }

// valid reports whether the log can have the cursor.
func (c Cursor) valid() bool {
	if c.timeline == 0 || c.timeline > 1<<31-1 || c.system > 1<<63-1 || c.xid > 1<<63-1 {
		return false
	}
	if c.xid != 0 {
		return c.at == 0
	}
	return c.at >= earliest && c.at <= latest
}

// PostgreSQL has no times outside of these, but infinity.
var (
	earliest = time.Date(-4712, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
	latest   = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).UnixMicro()
)
