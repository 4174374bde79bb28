package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/event"
	"upcall/internal/intake"
	"upcall/internal/recorder"
)

// A variant is a way to receive callbacks.
type variant struct {
	name    string
	records bool // in the database
	// recorder stands behind Upcall's handler instead of the receiver's own; nil is the
	// whole receiver.
	recorder func(pool *pgxpool.Pool, keyURL string) intake.Recorder
	env      []string // more of its environment
}

const (
	upcallName     = "Upcall"
	oneInsertName  = "one INSERT a request"
	noDatabaseName = "no database"
)

// variants are in the order of their turns: Upcall runs beside those it is compared with.
var variants = []variant{
	{name: noDatabaseName, recorder: func(*pgxpool.Pool, string) intake.Recorder { return noDatabase{} }},
	{name: upcallName, records: true},
	{name: oneInsertName, records: true, recorder: func(pool *pgxpool.Pool, _ string) intake.Recorder { return oneInsert{pool: pool} }},
	{name: "key fetched each time", records: true, recorder: func(pool *pgxpool.Pool, keyURL string) intake.Recorder {
		return fetching{oneInsert{pool: pool}, keyURL}
	}},
}

// tunedVariant has a handler and a table of its own.
var tunedVariant = variant{name: tunedName, env: []string{tunedEnv}}

func findVariant(name string) (variant, bool) {
	all := append([]variant{tunedVariant}, variants...)
	i := slices.IndexFunc(all, func(v variant) bool { return v.name == name })
	return all[max(i, 0)], i >= 0
}

func variantNamed(name string) variant {
	v, _ := findVariant(name)
	return v
}

// noDatabase is the ceiling: it records nothing.
type noDatabase struct{ findsNothing }

func (noDatabase) Record(context.Context, *event.Event) (recorder.Outcome, error) {
	return recorder.Outcome{Durable: recorder.InPostgres}, nil
}

// findsNothing serves loads in which no token has expired.
type findsNothing struct{}

func (findsNothing) Find(context.Context, uuid.UUID, uuid.NullUUID) (recorder.Durable, error) {
	return "", nil
}

// oneInsert records each callback with its own statement and commit, on a connection of the
// pool, like an untuned receiver. It keeps the same promises: one row, durable before the
// answer.
type oneInsert struct {
	findsNothing
	pool *pgxpool.Pool
}

// insertOne takes an event's columns, in their order.
var insertOne = func() string {
	var names, values []string
	number := make(map[string]string)
	for i, c := range event.Columns {
		number[c.Name] = fmt.Sprintf("$%d", i+1)
		names, values = append(names, c.Name), append(values, number[c.Name])
	}
	return fmt.Sprintf(`
WITH fresh AS (
	INSERT INTO upcall.callback_ids (upload_id, id, received_at) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING RETURNING id
)
INSERT INTO upcall.upload_events (%s) SELECT %s FROM fresh`,
		number["upload_id"], number["id"], number["received_at"], strings.Join(names, ", "), strings.Join(values, ", "))
}()

func (o oneInsert) Record(ctx context.Context, e *event.Event) (recorder.Outcome, error) {
	values := make([]any, len(event.Columns))
	for i, c := range event.Columns {
		values[i] = c.Field(e)
		if text, ok := values[i].(*string); ok && *text == "" {
			values[i] = nil
		}
	}
	tag, err := o.pool.Exec(ctx, insertOne, values...)
	return recorder.Outcome{Durable: recorder.InPostgres, Duplicate: err == nil && tag.RowsAffected() == 0}, err
}

// fetching gets the public key for each callback, as published samples do.
type fetching struct {
	intake.Recorder
	keyURL string
}

func (f fetching) Record(ctx context.Context, e *event.Event) (recorder.Outcome, error) {
	response, err := http.Get(f.keyURL)
	if err != nil {
		return recorder.Outcome{}, err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return recorder.Outcome{}, err
	}
	return f.Recorder.Record(ctx, e)
}
