package eventstore

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
)

// A column collects the values of one column as a one-dimensional array in PostgreSQL's
// binary format (array_recv in src/backend/utils/adt/arrayfuncs.c). Encoding by hand
// spares one allocation or more for each value, on the path that every event takes.
type column struct {
	element uint32 // OID of the element type
	rows    int
	nulls   bool
	buffer  []byte
}

// arrayHeader is: dimensions, whether there are nulls, element type, length, lower bound; 4 bytes each.
const arrayHeader = 20

func (c *column) reset() {
	c.rows, c.nulls = 0, false
	c.buffer = append(c.buffer[:0], make([]byte, arrayHeader)...)
}

// bytes returns the array. It is good until the next reset.
func (c *column) bytes() []byte {
	binary.BigEndian.PutUint32(c.buffer[0:], 1)
	if c.nulls {
		binary.BigEndian.PutUint32(c.buffer[4:], 1)
	}
	binary.BigEndian.PutUint32(c.buffer[8:], c.element)
	binary.BigEndian.PutUint32(c.buffer[12:], uint32(c.rows))
	binary.BigEndian.PutUint32(c.buffer[16:], 1)
	return c.buffer
}

func (c *column) null() {
	c.rows++
	c.nulls = true
	c.buffer = append(c.buffer, 0xff, 0xff, 0xff, 0xff) // length -1
}

// value adds one, by its binary form.
func value[T string | []byte](c *column, v T) {
	c.rows++
	c.buffer = binary.BigEndian.AppendUint32(c.buffer, uint32(len(v)))
	c.buffer = append(c.buffer, v...)
}

// text adds a text; "" is an absent value.
func (c *column) text(s string) {
	if s == "" {
		c.null()
		return
	}
	value(c, s)
}

// uuid adds one that is there.
func (c *column) uuid(id uuid.UUID) { value(c, id[:]) }

func (c *column) nullUUID(id uuid.NullUUID) {
	if !id.Valid {
		c.null()
		return
	}
	c.uuid(id.UUID)
}

func (c *column) int64(v *int64) {
	if v == nil {
		c.null()
		return
	}
	c.eight(*v)
}

func (c *column) eight(v int64) {
	c.rows++
	c.buffer = binary.BigEndian.AppendUint32(c.buffer, 8)
	c.buffer = binary.BigEndian.AppendUint64(c.buffer, uint64(v))
}

func (c *column) int32(v *int32) {
	if v == nil {
		c.null()
		return
	}
	c.rows++
	c.buffer = binary.BigEndian.AppendUint32(c.buffer, 4)
	c.buffer = binary.BigEndian.AppendUint32(c.buffer, uint32(*v))
}

// time adds a timestamptz: microseconds since 2000.
func (c *column) time(t time.Time) {
	const year2000 = 946_684_800_000_000
	c.eight(t.UnixMicro() - year2000)
}

// decimal adds an unsigned number as text: PostgreSQL has no unsigned type.
func (c *column) decimal(v *uint64) {
	if v == nil {
		c.null()
		return
	}
	var digits [20]byte
	value(c, strconv.AppendUint(digits[:0], *v, 10))
}

// addr adds an address as text, without a zone, which inet cannot hold.
func (c *column) addr(a netip.Addr) {
	if !a.IsValid() {
		c.null()
		return
	}
	var text [64]byte
	value(c, a.WithZone("").AppendTo(text[:0]))
}

// json adds a jsonb: a version byte and the text.
func (c *column) json(text []byte) {
	c.rows++
	c.buffer = binary.BigEndian.AppendUint32(c.buffer, uint32(len(text)+1))
	c.buffer = append(c.buffer, 1)
	c.buffer = append(c.buffer, text...)
}

// field adds a value by a pointer to it, as an event's columns give.
func (c *column) field(pointer any) {
	switch v := pointer.(type) {
	case *string:
		c.text(*v)
	case *uuid.UUID:
		c.uuid(*v)
	case *uuid.NullUUID:
		c.nullUUID(*v)
	case *time.Time:
		c.time(*v)
	case **int64:
		c.int64(*v)
	case **int32:
		c.int32(*v)
	case **uint64:
		c.decimal(*v)
	case *netip.Addr:
		c.addr(*v)
	default:
		panic(fmt.Sprintf("eventstore: there is no column for a %T", pointer))
	}
}

// binaryFormat asks for that format, of all parameters and all results.
var binaryFormat = []int16{1}

// columns are the parameters of a statement. One is used for many batches.
type columns struct {
	all    []column
	params [][]byte
}

// newColumns makes one column for each element type.
func newColumns(elements []uint32) *columns {
	c := &columns{all: make([]column, len(elements)), params: make([][]byte, len(elements))}
	for i, element := range elements {
		c.all[i].element = element
	}
	return c
}

func (c *columns) reset() {
	for i := range c.all {
		c.all[i].reset()
	}
}

// parameters are good until the next reset.
func (c *columns) parameters() [][]byte {
	for i := range c.all {
		c.params[i] = c.all[i].bytes()
	}
	return c.params
}

// A reservation is not a message: it makes space for one of so many bytes. pgx's buffer
// starts small with each statement, and growing to the size of a batch a quarter at a time
// allocated five times as much, more than all else that is done for a row.
type reservation int

// reserveFor returns a reservation for a statement with these parameters.
func reserveFor(parameters [][]byte) reservation {
	size := 512 // for names, formats and the messages around
	for _, p := range parameters {
		size += 4 + len(p)
	}
	return reservation(size)
}

// Encode makes the space and writes nothing.
func (r reservation) Encode(dst []byte) ([]byte, error) { return slices.Grow(dst, int(r)), nil }

// Decode is not used: it makes a reservation a pgproto3.FrontendMessage, as Frontend does.
func (reservation) Decode([]byte) error { return nil }

// Frontend marks what a client sends.
func (reservation) Frontend() {}
