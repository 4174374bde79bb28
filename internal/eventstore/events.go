package eventstore

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/event"
)

// eventColumns are what scanEvent reads.
var eventColumns = func() string {
	var read []string
	for _, c := range event.Columns {
		read = append(read, fmt.Sprintf(typeOf(c.Field(new(event.Event))).read, c.Name))
	}
	return strings.Join(read, ", ")
}()

// Each calls visit for every event, in no order. A null column is the zero value of its
// field. The pool is from [OpenReader].
func Each(ctx context.Context, pool *pgxpool.Pool, visit func(*event.Event)) error {
	rows, err := pool.Query(ctx, "SELECT "+eventColumns+" FROM upcall.upload_events")
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		e, err := scanEvent(rows)
		if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
		visit(&e)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	return nil
}

// Table returns what a query finds as texts to show: the names of its columns, then its
// rows, in which "null" is null. The pool is from [OpenReader].
func Table(ctx context.Context, pool *pgxpool.Pool, query string) ([][]string, error) {
	rows, err := pool.Query(ctx, query, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return nil, fmt.Errorf("query: %w", err)
	}
	defer rows.Close()
	table := make([][]string, 1)
	for rows.Next() {
		var line []string
		for _, value := range rows.RawValues() {
			if value == nil {
				value = []byte("null")
			}
			line = append(line, string(value))
		}
		table = append(table, line)
	}
	for _, column := range rows.FieldDescriptions() {
		table[0] = append(table[0], column.Name)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("query: %w", err)
	}
	return table, nil
}

func scanEvent(row pgx.CollectableRow) (event.Event, error) {
	e := new(event.Event)
	fields := make([]any, len(event.Columns))
	for i, c := range event.Columns {
		field := c.Field(e)
		switch field.(type) {
		case **uint64, *netip.Addr:
			field = asText{field}
		}
		fields[i] = field
	}
	if err := row.Scan(fields...); err != nil {
		return event.Event{}, err
	}
	return *e, nil
}

// asText reads what travels as text.
type asText struct{ field any }

// ScanText is called by pgx.
func (a asText) ScanText(text pgtype.Text) error {
	if !text.Valid {
		return nil
	}
	switch field := a.field.(type) {
	case **uint64:
		*field = new(uint64)
		return json.Unmarshal([]byte(text.String), *field)
	case *netip.Addr:
		return field.UnmarshalText([]byte(text.String))
	}
	return nil
}
