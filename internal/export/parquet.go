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
	values  values
	pending []parquet.Row // not yet given to w
	rows    int           // of the row group
	content content       // of all rows
}

// values are what events are in Parquet.
type values struct {
	levels []int  // of each column: the definition level of a value, 1 if it can be null
	text   []byte // what rows refer to
	bytes  int    // of all rows, roughly
}

func newValues() values {
	var v values
	for _, c := range event.Members {
		level := 1
		if !nullable(c) {
			level = 0
		}
		v.levels = append(v.levels, level)
	}
	return v
}

func beginParquet(w io.Writer) (encoder, error) { return newTable(w), nil }

func newTable(w io.Writer) *table {
	return &table{values: newValues(), w: parquet.NewGenericWriter[any](w, schema(),
		parquet.Compression(&zstd.Codec{Level: zstd.SpeedFastest}),
		parquet.DictionaryMaxBytes(dictionaryBytes),
		parquet.PageBufferSize(128<<10))}
}

func (t *table) add(e *event.Event) error {
	row, err := t.values.row(e)
	if err != nil {
		return err
	}
	return t.addRow(row)
}

// row returns the values of an event, which are valid until text is reset.
func (v *values) row(e *event.Event) (parquet.Row, error) {
	row := make(parquet.Row, len(event.Members))
	for i, c := range event.Members {
		one, err := v.value(c, e)
		if err != nil {
			return nil, err
		}
		row[i] = v.place(one, i)
	}
	return row, nil
}

// place returns a value as that of a column.
func (v *values) place(one parquet.Value, column int) parquet.Value {
	level := v.levels[column]
	if one.IsNull() {
		level = 0
	}
	return one.Level(0, level, column)
}

// addRow writes a row.
func (t *table) addRow(row parquet.Row) error {
	t.content.add(row)
	t.pending = append(t.pending, row)
	t.rows++
	if len(t.pending) == rowsAtOnce {
		if err := t.pass(); err != nil {
			return err
		}
	}
	if t.rows == groupRows || t.values.bytes >= groupBytes {
		if err := t.pass(); err != nil {
			return err
		}
		t.rows, t.values.bytes = 0, 0
		return t.w.Flush()
	}
	return nil
}

// pass gives the library the rows, which it copies.
func (t *table) pass() error {
	_, err := t.w.WriteRows(t.pending)
	clear(t.pending)
	t.pending, t.values.text = t.pending[:0], t.values.text[:0]
	return err
}

func (t *table) end() error {
	if err := t.pass(); err != nil {
		return err
	}
	t.w.SetKeyValueMetadata(contentKey, t.content.String())
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

func (v *values) value(c event.Column, e *event.Event) (one parquet.Value, err error) {
	switch field := c.Field(e).(type) {
	case *uuid.UUID:
		one = parquet.FixedLenByteArrayValue(field[:])
	case *uuid.NullUUID:
		if field.Valid {
			one = parquet.FixedLenByteArrayValue(field.UUID[:])
		}
	case *time.Time:
		one = parquet.Int64Value(field.UnixMicro())
	case *string:
		if *field != "" {
			one = parquet.ByteArrayValue([]byte(*field))
			v.bytes += len(*field)
		}
	case **int64:
		if *field != nil {
			one = parquet.Int64Value(**field)
		}
	case **int32:
		if *field != nil {
			one = parquet.Int32Value(**field)
		}
	case **uint64:
		if *field != nil {
			one = parquet.Int64Value(int64(**field)) // the same 64 bits
		}
	default:
		begins := len(v.text)
		if v.text, err = appendText(v.text, c, e); err != nil {
			return parquet.Value{}, err
		}
		if value := v.text[begins:]; len(value) > 0 {
			one = parquet.ByteArrayValue(value)
			v.bytes += len(value)
		}
	}
	v.bytes += 8
	return one, nil
}
