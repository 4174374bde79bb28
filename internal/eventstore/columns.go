package eventstore

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"
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

func (c *column) int64(v int64) {
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
	c.int64(t.UnixMicro() - year2000)
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

// columns are the parameters of insertEvents. One is used for many batches.
type columns struct {
	all     [19]column
	params  [][]byte
	formats []int16
}

func newColumns() *columns {
	c := &columns{params: make([][]byte, 19), formats: []int16{1}} // 1: all are binary
	for i := range c.all {
		c.all[i].element = pgtype.TextOID
	}
	for element, indices := range map[uint32][]int{
		pgtype.UUIDOID:        {0, 16},
		pgtype.TimestamptzOID: {1},
		pgtype.Int8OID:        {5},
		pgtype.Int4OID:        {7, 8},
		pgtype.JSONBOID:       {17},
	} {
		for _, i := range indices {
			c.all[i].element = element
		}
	}
	return c
}

// fill encodes the events.
func (c *columns) fill(rows []*request) {
	for i := range c.all {
		c.all[i].reset()
	}
	for _, row := range rows {
		c.add(&row.event, row.vars)
	}
	for i := range c.all {
		c.params[i] = c.all[i].bytes()
	}
}

func (c *columns) add(e *Event, vars []byte) {
	b, all := &e.Callback, &c.all
	value(&all[0], e.ID[:])
	all[1].time(e.ReceivedAt)
	all[2].text(b.Bucket)
	all[3].text(b.Object)
	all[4].text(b.ETag)
	if b.Size == nil {
		all[5].null()
	} else {
		all[5].int64(*b.Size)
	}
	all[6].text(b.MimeType)
	all[7].int32(b.ImageWidth)
	all[8].int32(b.ImageHeight)
	all[9].text(b.ImageFormat)
	all[10].decimal(b.CRC64)
	all[11].text(b.ContentMD5)
	all[12].text(b.VPCID)
	all[13].addr(b.ClientIP)
	all[14].text(b.RequestID)
	all[15].text(b.Operation)
	nullUUID(&all[16], e.UploadID)
	all[17].json(vars)
	all[18].text(e.Source)
}

func nullUUID(c *column, id uuid.NullUUID) {
	if !id.Valid {
		c.null()
		return
	}
	value(c, id.UUID[:])
}
