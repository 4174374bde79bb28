package eventstore

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"
)

// A field of a row is a parameter of the statement that writes it: an array with the value
// of each row.
type field[T any] struct {
	name    string
	pointer func(*T) any // to the value, of one of the types in typeOf
	aside   bool         // not a column of the row's table
	once    bool         // the same for all rows: an array of one, with the first row's
	value   string       // what stands in {values}; default the name
}

// A statement is prepared on each connection under its name.
type statement struct {
	name, sql string
	columns   columns // the parameters; each writer has a copy
}

// newStatement fills in the SQL: {name} is the parameter of that field, {columns} and {values} are
// the names of all columns, without and with casts, and {given} is the rows.
//
// The arrays are unnested in a SELECT list, which takes one element of each at a time. In FROM,
// PostgreSQL first stores each array's elements as a table of its own, and then joins those.
func newStatement[T any](name, sql string, fields []field[T]) statement {
	s := statement{name: name}
	var names, values, given, replace []string
	for i, f := range fields {
		t := typeOf(f.pointer(new(T)))
		s.columns = append(s.columns, column{element: t.element})
		parameter := fmt.Sprintf("$%d::%s", i+1, t.array)
		replace = append(replace, "{"+f.name+"}", parameter)
		if !f.aside {
			names, values, given = append(names, f.name), append(values, cmp.Or(f.value, f.name)+t.cast),
				append(given, fmt.Sprintf("unnest(%s) AS %s", parameter, f.name))
		}
	}
	for name, parts := range map[string][]string{"{columns}": names, "{values}": values} {
		replace = append(replace, name, strings.Join(parts, ", "))
	}
	replace = append(replace, "{given}", "(SELECT "+strings.Join(given, ", ")+") AS given")
	s.sql = strings.NewReplacer(replace...).Replace(sql)
	return s
}

// A fieldType says how fields of one Go type are sent to PostgreSQL: as text where the
// protocol has no simple binary form.
type fieldType struct {
	element uint32 // OID of the array's elements
	array   string // SQL type of the array
	cast    string // from an element to the column's type
}

func typeOf(pointer any) fieldType {
	switch pointer.(type) {
	case *uuid.UUID, *uuid.NullUUID:
		return fieldType{pgtype.UUIDOID, "uuid[]", ""}
	case *time.Time:
		return fieldType{pgtype.TimestamptzOID, "timestamptz[]", ""}
	case *string: // "" is null
		return fieldType{pgtype.TextOID, "text[]", ""}
	case **int64:
		return fieldType{pgtype.Int8OID, "bigint[]", ""}
	case **int32:
		return fieldType{pgtype.Int4OID, "integer[]", ""}
	case *bool:
		return fieldType{pgtype.BoolOID, "boolean[]", ""}
	case **uint64: // PostgreSQL has no unsigned type
		return fieldType{pgtype.TextOID, "text[]", "::numeric"}
	case *netip.Addr:
		return fieldType{pgtype.TextOID, "text[]", "::inet"}
	case *[]byte, *map[string]json.RawMessage:
		return fieldType{pgtype.JSONBOID, "jsonb[]", ""}
	default:
		panic(fmt.Sprintf("eventstore: there is no type for a %T", pointer))
	}
}
