package eventstore

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"
)

// A field of a row is a parameter of the statement that writes it, as an array with a value
// of each row.
type field[T any] struct {
	name    string
	pointer func(*T) any // to the value, of one of the types in typeOf
	aside   bool         // it is not a column of the row's table
}

// A statement is prepared on each connection under its name.
type statement struct {
	name, sql string
	columns   columns // to be copied: the parameters
}

// newStatement fills in a text, in which {name} stands for the parameter of that field, and
// {columns}, {values} and {given} for all columns: names, names with casts, and parameters.
func newStatement[T any](name, sql string, fields []field[T]) statement {
	s := statement{name: name}
	var names, values, given, replace []string
	for i, f := range fields {
		t := typeOf(f.pointer(new(T)))
		s.columns = append(s.columns, column{element: t.element})
		parameter := fmt.Sprintf("$%d::%s", i+1, t.array)
		replace = append(replace, "{"+f.name+"}", parameter)
		if !f.aside {
			names, values, given = append(names, f.name), append(values, f.name+t.cast), append(given, parameter)
		}
	}
	for name, parts := range map[string][]string{"{columns}": names, "{values}": values, "{given}": given} {
		replace = append(replace, name, strings.Join(parts, ", "))
	}
	s.sql = strings.NewReplacer(replace...).Replace(sql)
	return s
}

// A fieldType is how the fields of one Go type travel. What PostgreSQL's protocol has no
// simple form for goes as text.
type fieldType struct {
	element uint32 // OID of the elements of the array that PostgreSQL is given
	array   string // and its SQL type
	cast    string // from the element to the column's type
	read    string // what is read, of the column's name in place of %s
}

func typeOf(pointer any) fieldType {
	switch pointer.(type) {
	case *uuid.UUID, *uuid.NullUUID:
		return fieldType{pgtype.UUIDOID, "uuid[]", "", "%s"}
	case *time.Time:
		return fieldType{pgtype.TimestamptzOID, "timestamptz[]", "", "%s"}
	case *string: // "" is null
		return fieldType{pgtype.TextOID, "text[]", "", "coalesce(%s, '')"}
	case **int64:
		return fieldType{pgtype.Int8OID, "bigint[]", "", "%s"}
	case **int32:
		return fieldType{pgtype.Int4OID, "integer[]", "", "%s"}
	case **uint64: // PostgreSQL has no unsigned type
		return fieldType{pgtype.TextOID, "text[]", "::numeric", "%s::text"}
	case *netip.Addr:
		return fieldType{pgtype.TextOID, "text[]", "::inet", "host(%s)"}
	case *[]byte, *map[string]json.RawMessage:
		return fieldType{pgtype.JSONBOID, "jsonb[]", "", "%s"}
	default:
		panic(fmt.Sprintf("eventstore: there is no type for a %T", pointer))
	}
}
