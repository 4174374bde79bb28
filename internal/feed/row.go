package feed

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"upcall/internal/event"
	"upcall/internal/eventstore"
)

// A row is an entry as PostgreSQL sent it. It is decoded when someone wants it, once: most
// readers want little, and what none wants must cost the intake next to nothing, now and
// whenever garbage is collected.
type row struct {
	cursor   Cursor
	received time.Time
	found    *found // nil if it is an event
	values   string // of all columns of its event, each after its length, as in the protocol
	columns  []pgconn.FieldDescription
	event    atomic.Pointer[event.Event]
}

// Where columns are that are read on their own, among those of an event.
var (
	idAt       = columnAt("id")
	receivedAt = columnAt("received_at")
	bucketAt   = columnAt("bucket")
	objectAt   = columnAt("object_key")
	typeAt     = columnAt("mime_type")
	varsAt     = columnAt("vars")
)

func columnAt(name string) int {
	return slices.IndexFunc(event.Columns, func(c event.Column) bool { return c.Name == name })
}

// prefixLength is that of a value's length, as in the protocol.
const prefixLength = 4

// appendValues writes the values of a row. A null has the length -1.
func appendValues(to *strings.Builder, values [][]byte) {
	for _, value := range values {
		length := int32(len(value))
		if value == nil {
			length = -1
		}
		var prefix [prefixLength]byte
		binary.BigEndian.PutUint32(prefix[:], uint32(length))
		to.Write(prefix[:])
		to.Write(value)
	}
}

// nextValue returns the first of some values, and the rest of them.
func nextValue[T string | []byte](values T) (value T, null bool, rest T) {
	length := int32(uint32(values[0])<<24 | uint32(values[1])<<16 | uint32(values[2])<<8 | uint32(values[3]))
	if values = values[prefixLength:]; length < 0 {
		return value, true, values
	}
	return values[:length], false, values[length:]
}

// A decoder makes events of rows.
type decoder struct {
	mu      sync.Mutex
	columns []pgconn.FieldDescription // that the plans are for
	plans   []pgtype.ScanPlan
}

// plan makes plans to scan columns, of which almost always all statements have the same.
func (d *decoder) plan(columns []pgconn.FieldDescription, fields []any) {
	same := func(a, b pgconn.FieldDescription) bool { return a.DataTypeOID == b.DataTypeOID && a.Format == b.Format }
	if slices.EqualFunc(d.columns, columns, same) {
		return
	}
	types := pgtype.NewMap()
	d.columns, d.plans = columns, make([]pgtype.ScanPlan, len(columns))
	for i, c := range columns {
		d.plans[i] = types.PlanScan(c.DataTypeOID, c.Format, fields[i])
	}
}

// decode returns the event of a row.
func (d *decoder) decode(r *row) (*event.Event, error) {
	if e := r.event.Load(); e != nil {
		return e, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if e := r.event.Load(); e != nil {
		return e, nil
	}
	e, values := new(event.Event), []byte(r.values)
	fields := eventstore.EventFields(e)
	d.plan(r.columns, fields)
	for i, field := range fields {
		var value []byte // nil if null
		value, _, values = nextValue(values)
		if err := d.plans[i].Scan(value, field); err != nil {
			return nil, fmt.Errorf("read the log: entry %s: %s: %w", r.cursor.id, r.columns[i].Name, err)
		}
	}
	r.event.Store(e)
	return e, nil
}

// entries decodes rows.
func (d *decoder) entries(rows []*row) ([]Entry, error) {
	entries := make([]Entry, 0, len(rows))
	for _, r := range rows {
		e, err := d.decode(r)
		if err != nil {
			return nil, err
		}
		entry := Entry{Cursor: r.cursor, Event: e, Kind: event.Recorded}
		if r.found != nil {
			entry.Kind, entry.Found = r.found.kind, &r.found.Finding
		}
		entries = append(entries, entry)
	}
	return entries, nil
}

// A Sight is what can be seen of an entry before it is decoded.
type Sight struct {
	ID                       uuid.UUID // of the event, or of the finding
	Kind                     event.Kind
	ReceivedAt               time.Time // of the event
	At                       time.Time // when it was found; ReceivedAt if it was not
	Bucket, Object, MimeType string    // "" if null

	row  *row
	vars map[string]json.RawMessage
}

// sight returns what can be seen of a row.
func (r *row) sight() Sight {
	s := Sight{ID: r.cursor.id, Kind: event.Recorded, ReceivedAt: r.received, At: r.received, row: r}
	if r.found != nil {
		s.Kind, s.At = r.found.kind, r.found.At
	}
	rest := r.values
	for i := 0; i <= max(bucketAt, objectAt, typeAt); i++ {
		var value string
		value, _, rest = nextValue(rest)
		switch i {
		case bucketAt:
			s.Bucket = value
		case objectAt:
			s.Object = value
		case typeAt:
			s.MimeType = value
		}
	}
	return s
}

// Vars returns the custom variables, none if they cannot be read.
func (s *Sight) Vars() map[string]json.RawMessage {
	if s.vars == nil {
		s.vars = make(map[string]json.RawMessage)
		value, null, rest := "", true, s.row.values
		for i := 0; i <= varsAt; i++ {
			value, null, rest = nextValue(rest)
		}
		if !null && s.row.columns[varsAt].Format == pgtype.BinaryFormatCode {
			value = value[1:] // the version of jsonb
		}
		if !null && json.Unmarshal([]byte(value), &s.vars) != nil {
			s.vars = make(map[string]json.RawMessage)
		}
	}
	return s.vars
}

// sights returns what can be seen of rows.
func sights(rows []*row) []Sight {
	seen := make([]Sight, len(rows))
	for i, r := range rows {
		seen[i] = r.sight()
	}
	return seen
}

// A scanner reads the rows of a statement. Their last columns are those of an event.
type scanner struct {
	columns []pgconn.FieldDescription
	fields  []any // to scan into, of which most are nil
	first   int   // the column where an event begins
	place   uint64
	id      uuid.UUID
	at      time.Time
	values  strings.Builder
	ends    []int // of each row's values
	rows    []row
}

// newScanner returns a scanner of rows that have recorded_xid and placed_at before the first
// columns of an event.
func newScanner(rows pgx.Rows, columns int) *scanner {
	s := &scanner{columns: slices.Clone(rows.FieldDescriptions())}
	s.first = len(s.columns) - columns
	s.fields = make([]any, len(s.columns))
	s.fields[s.first-2] = orZero{&s.place}
	s.fields[s.first+idAt] = &s.id
	s.fields[s.first+receivedAt] = &s.at
	return s
}

// scan takes in a row; more is false if it has no room for it.
func (s *scanner) scan(rows pgx.Rows) (more bool, err error) {
	values := rows.RawValues()[s.first:]
	size := s.values.Len()
	for _, value := range values {
		size += prefixLength + len(value)
	}
	if size > mostBytes && len(s.rows) > 0 {
		return false, nil
	}
	if err := rows.Scan(s.fields...); err != nil {
		return false, err
	}
	appendValues(&s.values, values)
	s.ends = append(s.ends, s.values.Len())
	place := position{xid: s.place, id: s.id}
	if place.xid == 0 {
		place.at = s.at.UnixMicro()
	}
	s.rows = append(s.rows, row{cursor: Cursor{position: place}, received: s.at, columns: s.columns[s.first:]})
	return true, nil
}

// end returns the rows.
func (s *scanner) end(in cluster) []*row {
	values, begin := s.values.String(), 0
	all := make([]*row, len(s.rows))
	for i := range s.rows {
		r := &s.rows[i]
		r.values, begin = values[begin:s.ends[i]], s.ends[i]
		r.cursor.system, r.cursor.timeline = in.system, in.timeline
		all[i] = r
	}
	return all
}
