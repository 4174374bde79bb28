package eventstore

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype/zeronull"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/event"
)

// EventColumns are the columns that [EventFields] are for, in SQL: those of event.Members. The
// statement reads upcall.upload_events without an alias.
func EventColumns() string { return eventColumns }

// eventColumns are the columns that scanEvent reads.
var eventColumns = func() string {
	var names []string
	for _, c := range event.Columns {
		names = append(names, c.Name)
	}
	return strings.Join(append(names, supersedes+" AS supersedes"), ", ")
}()

// ownColumns are the same for programs that show no supersedes: their roles need no right to look it up.
var ownColumns = strings.Replace(eventColumns, supersedes, "NULL::uuid", 1)

// supersedes is the event that an event takes the place of. No event waits for it: what is recovered comes
// after all events that tell of the same upload in the log, or before, see [Recover]. What a listing found is also
// known by its object, ETag and about the time: it may have been taken for another upload to the same key.
//
// While nothing has been recovered, it costs a look at an empty index for each statement. Else it costs
// three for each event, about five buffers. So while few uploads have been recovered, events are first compared with
// all of those, which are read once for each statement; a hundred, because a statement often reads no more events.
var supersedes = `CASE WHEN (SELECT EXISTS (SELECT FROM upcall.recovered_uploads)) AND source IN ('callback', 'notification') AND (
	(SELECT EXISTS (SELECT FROM upcall.recovered_uploads OFFSET 100))
	OR upload_id IN (SELECT upload_id FROM upcall.recovered_uploads WHERE upload_id IS NOT NULL LIMIT 100)
	OR request_id IN (SELECT request_id FROM upcall.recovered_uploads WHERE request_id IS NOT NULL LIMIT 100)
	OR object_key IN (SELECT object_key FROM upcall.recovered_uploads WHERE source = 'reconcile' LIMIT 100)
	OR object_key IS NULL
) THEN coalesce((
	SELECT r.event_id FROM upcall.recovered_uploads r
	WHERE r.upload_id = upload_events.upload_id AND r.etag = upper(btrim(upload_events.etag, '"') COLLATE "C")
		AND coalesce(r.object_key = upload_events.object_key, true) AND ` + lesser + `
), (
	SELECT r.event_id FROM upcall.recovered_uploads r WHERE r.request_id = upload_events.request_id AND ` + lesser + `
), (
	SELECT r.event_id FROM upcall.recovered_uploads r
	WHERE r.source = 'reconcile' AND r.object_key = ` + placed("upload_events", "object_key") + `
		AND r.bucket = ` + placed("upload_events", "bucket") + `
		AND r.etag = upper(btrim(upload_events.etag, '"') COLLATE "C") AND r.received_at BETWEEN
			upload_events.received_at - ` + event.ListedApartSQL + ` AND upload_events.received_at + ` + event.ListedApartSQL + `
		AND ` + lesser + `
)) END`

// placed returns the column bucket or object_key of the object of an event. A callback that names none, as a template
// of the operator's own may have it, is of the object that its upload was issued for; one of a form under a prefix
// always names one.
func placed(event, column string) string {
	return fmt.Sprintf("coalesce(%[1]s.%[2]s, (SELECT i.%[2]s FROM upcall.issued_uploads i WHERE i.upload_id = %[1]s.upload_id AND NOT i.by_prefix))",
		event, column)
}

// lesser is that what was recovered gives way, see rank in package rollup.
const lesser = `(upload_events.source = 'callback' OR upload_events.source = 'notification' AND r.source = 'reconcile')
	ORDER BY r.received_at DESC, r.event_id DESC LIMIT 1`

// Each calls visit for every event, in any order. A null column is the zero value of its
// field. The pool is from [OpenReader].
func Each(ctx context.Context, pool *pgxpool.Pool, visit func(*event.Event)) error {
	rows, _ := pool.Query(ctx, "SELECT "+eventColumns+" FROM upcall.upload_events") // rows.Err returns the error, too
	defer rows.Close()
	for rows.Next() {
		e, err := scanEvent(rows)
		if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
		visit(e)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	return nil
}

// Table returns the result of a query as texts to show: the names of its columns, then its
// rows, in which "null" is null. The pool is from [OpenReader].
func Table(ctx context.Context, pool *pgxpool.Pool, query string) ([][]string, error) {
	rows, _ := pool.Query(ctx, query, pgx.QueryExecModeSimpleProtocol) // rows.Err returns the error, too
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

func scanEvent(row pgx.CollectableRow) (*event.Event, error) {
	e := new(event.Event)
	return e, row.Scan(EventFields(e)...)
}

// EventFields returns the fields of an event to scan [EventColumns] into.
func EventFields(e *event.Event) []any {
	fields := make([]any, len(event.Members))
	for i, c := range event.Members {
		fields[i] = c.Field(e)
		if text, ok := fields[i].(*string); ok {
			fields[i] = (*zeronull.Text)(text)
		}
	}
	return fields
}
