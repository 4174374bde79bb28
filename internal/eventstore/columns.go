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
// binary format (array_recv in src/backend/utils/adt/arrayfuncs.c). Encoding by hand saves at
// least one allocation for each value of each event.
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

// bytes returns the array, which is valid until the next reset.
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

// year2000 is PostgreSQL's epoch, in microseconds since 1970.
const year2000 = 946_684_800_000_000

// add adds a value by a pointer to it, of one of the types in [typeOf].
func (c *column) add(pointer any) {
	var scratch [64]byte
	wire := scratch[:0]
	switch v := pointer.(type) {
	case *string:
		if *v != "" {
			value(c, *v)
			return
		}
	case *[]byte: // jsonb is a version and the text
		c.rows++
		c.buffer = append(binary.BigEndian.AppendUint32(c.buffer, uint32(len(*v)+1)), 1)
		c.buffer = append(c.buffer, *v...)
		return
	case *uuid.UUID:
		wire = append(wire, v[:]...)
	case *uuid.NullUUID:
		if v.Valid {
			wire = append(wire, v.UUID[:]...)
		}
	case *time.Time:
		wire = binary.BigEndian.AppendUint64(wire, uint64(v.UnixMicro()-year2000))
	case **int64:
		if *v != nil {
			wire = binary.BigEndian.AppendUint64(wire, uint64(**v))
		}
	case **int32:
		if *v != nil {
			wire = binary.BigEndian.AppendUint32(wire, uint32(**v))
		}
	case **uint64:
		if *v != nil {
			wire = strconv.AppendUint(wire, **v, 10)
		}
	case *bool: // never null
		var bit byte
		if *v {
			bit = 1
		}
		value(c, []byte{bit})
		return
	case *netip.Addr:
		if v.IsValid() {
			wire = v.WithZone("").AppendTo(wire) // inet has no zones
		}
	default:
		panic(fmt.Sprintf("eventstore: there is no column for a %T", pointer))
	}
	if len(wire) > 0 {
		value(c, wire)
		return
	}
	c.rows++
	c.nulls = true
	c.buffer = append(c.buffer, 0xff, 0xff, 0xff, 0xff) // length -1
}

// value adds a value in its binary form.
func value[T string | []byte](c *column, v T) {
	c.rows++
	c.buffer = binary.BigEndian.AppendUint32(c.buffer, uint32(len(v)))
	c.buffer = append(c.buffer, v...)
}

// binaryFormat selects that format for all parameters and results.
var binaryFormat = []int16{1}

// columns are the parameters of a statement, which are reused for many batches.
type columns []column

func (c columns) reset() {
	for i := range c {
		c[i].reset()
	}
}

// parameters are valid until the next reset.
func (c columns) parameters() [][]byte {
	parameters := make([][]byte, len(c))
	for i := range c {
		parameters[i] = c[i].bytes()
	}
	return parameters
}

// A reservation poses as a message to make space for one of that many bytes. pgx's buffer starts
// small for each statement, and growing it by a quarter at a time to the size of a batch
// allocated five times as much, more than everything else that is done for a row.
type reservation int

// reserveFor returns a reservation for a statement with these parameters.
func reserveFor(parameters [][]byte) reservation {
	size := 512 // for names, formats and other messages
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
