package export

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/google/uuid"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"

	"upcall/internal/event"
)

const (
	// A row group is in memory until it is written, so it ends at either of these. Few are better
	// for readers: each has its own index.
	groupRows, groupBytes = 64 << 10, 12 << 20
	// rowsAtOnce is how many rows the library gets at once.
	rowsAtOnce = 256
	// dictionaryBytes is up to where a column's values in a row group are each written once, and
	// referred to. Columns whose values differ, as object keys, get there soon.
	dictionaryBytes = 256 << 10
)

// ordered is a group whose columns are not sorted by name.
type ordered struct {
	parquet.Group
	names []string
}

func (o ordered) Fields() []parquet.Field {
	byName := make(map[string]parquet.Field)
	for _, f := range o.Group.Fields() {
		byName[f.Name()] = f
	}
	fields := make([]parquet.Field, len(o.names))
	for i, name := range o.names {
		fields[i] = byName[name]
	}
	return fields
}

// schema returns the columns with their types.
func schema() *parquet.Schema {
	columns := ordered{parquet.Group{}, columnNames()}
	for _, c := range event.Members {
		columns.Group[c.Member()] = nodeOf(c)
	}
	return parquet.NewSchema("event", columns)
}

func nodeOf(c event.Column) parquet.Node {
	switch c.Field(new(event.Event)).(type) {
	case *uuid.UUID:
		return parquet.UUID()
	case *uuid.NullUUID:
		return parquet.Optional(parquet.UUID())
	case *time.Time:
		return parquet.Encoded(parquet.Timestamp(parquet.Microsecond), &parquet.DeltaBinaryPacked)
	case *map[string]json.RawMessage:
		return parquet.Encoded(parquet.JSON(), &parquet.RLEDictionary)
	case *string, *netip.Addr:
		return parquet.Optional(parquet.Encoded(parquet.String(), &parquet.RLEDictionary))
	case **int64:
		return parquet.Optional(parquet.Int(64))
	case **int32:
		return parquet.Optional(parquet.Int(32))
	case **uint64:
		return parquet.Optional(parquet.Uint(64))
	default:
		panic(fmt.Sprintf("export: there is no Parquet type for %s", c.Name))
	}
}

// A table writes Parquet.
type table struct {
	w       *parquet.GenericWriter[any]
	pending []parquet.Row // not yet given to w
	text    []byte        // what pending refers to
	rows    int           // of the row group
	bytes   int           // of the row group, roughly
	levels  []int         // of each column: the definition level of a value, 1 if it can be null
}

func beginParquet(w io.Writer) (encoder, error) {
	t := &table{w: parquet.NewGenericWriter[any](w, schema(),
		parquet.Compression(&zstd.Codec{Level: zstd.SpeedFastest}),
		parquet.DictionaryMaxBytes(dictionaryBytes),
		parquet.PageBufferSize(128<<10))}
	for _, c := range event.Members {
		t.levels = append(t.levels, 1)
		if !nullable(c) {
			t.levels[len(t.levels)-1] = 0
		}
	}
	return t, nil
}

func (t *table) add(e *event.Event) error {
	row := make(parquet.Row, 0, len(event.Members))
	for i, c := range event.Members {
		v, err := t.value(c, e)
		if err != nil {
			return err
		}
		level := t.levels[i]
		if v.IsNull() {
			level = 0
		}
		row = append(row, v.Level(0, level, i))
	}
	t.pending = append(t.pending, row)
	t.rows++
	if len(t.pending) == rowsAtOnce {
		if err := t.pass(); err != nil {
			return err
		}
	}
	if t.rows == groupRows || t.bytes >= groupBytes {
		if err := t.pass(); err != nil {
			return err
		}
		t.rows, t.bytes = 0, 0
		return t.w.Flush()
	}
	return nil
}

// pass gives the library the rows, which it copies.
func (t *table) pass() error {
	_, err := t.w.WriteRows(t.pending)
	clear(t.pending)
	t.pending, t.text = t.pending[:0], t.text[:0]
	return err
}

func (t *table) end() error {
	if err := t.pass(); err != nil {
		return err
	}
	return t.w.Close()
}

// nullable reports whether a column has nulls: all but those that are never null.
func nullable(c event.Column) bool {
	switch c.Field(new(event.Event)).(type) {
	case *uuid.UUID, *time.Time, *map[string]json.RawMessage:
		return false
	}
	return true
}

func (t *table) value(c event.Column, e *event.Event) (v parquet.Value, err error) {
	switch field := c.Field(e).(type) {
	case *uuid.UUID:
		v = parquet.FixedLenByteArrayValue(field[:])
	case *uuid.NullUUID:
		if field.Valid {
			v = parquet.FixedLenByteArrayValue(field.UUID[:])
		}
	case *time.Time:
		v = parquet.Int64Value(field.UnixMicro())
	case *string:
		if *field != "" {
			v = parquet.ByteArrayValue([]byte(*field))
			t.bytes += len(*field)
		}
	case **int64:
		if *field != nil {
			v = parquet.Int64Value(**field)
		}
	case **int32:
		if *field != nil {
			v = parquet.Int32Value(**field)
		}
	case **uint64:
		if *field != nil {
			v = parquet.Int64Value(int64(**field)) // the same 64 bits
		}
	default:
		begins := len(t.text)
		if t.text, err = appendText(t.text, c, e); err != nil {
			return parquet.Value{}, err
		}
		if value := t.text[begins:]; len(value) > 0 {
			v = parquet.ByteArrayValue(value)
			t.bytes += len(value)
		}
	}
	t.bytes += 8
	return v, nil
}
