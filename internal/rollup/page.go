package rollup

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"upcall/internal/eventstore"
	"upcall/internal/feed"
)

// A told upload is as an event tells of it.
type told struct {
	upload
	place
}

// pageSQL reads a page of the log, $4 to $7 in the given order. If $2 is true, uploads to objects that
// are not there yet become objects, and are counted: then it is one statement for most of a page, and
// nothing of it leaves PostgreSQL. It returns rows of counts, without an id, and the events
// that remain; and of each row, whether it may change one of the days.
func pageSQL(order string) string {
	return `
	WITH page AS MATERIALIZED (
		SELECT id, received_at, bucket, object_key, etag, size, mime_type, crc64, operation, upload_id, client_ip, vars, source,
			CASE WHEN octet_length(request_id) <= 128 THEN request_id END AS request_id,
			CASE WHEN given IN ('image/jpg', 'image/pjpeg') THEN 'image/jpeg' WHEN octet_length(given) > 255 THEN 'other'
				ELSE given END AS type,
			upper(btrim(etag, '"') COLLATE "C") AS plain_etag,
			octet_length(bucket) > 0 AND octet_length(object_key) > 0 AND octet_length(bucket) + octet_length(object_key) <= 2600 AS placed
		FROM (
			SELECT *, lower(coalesce(btrim(split_part(mime_type, ';', 1), E' \t'), '') COLLATE "C") AS given
			FROM upcall.upload_events WHERE ` + order + `
		) AS told
	), fresh AS (
		INSERT INTO upcall.rollup_objects (generation, bucket, object_key, uploads, sources,
			first_at, first_id, first_mime_type, first_source, first_size, first_request_id, ` + latestColumns + `)
		SELECT $1, bucket, object_key, 1, CASE source WHEN 'callback' THEN 1 WHEN 'notification' THEN 2 WHEN 'reconcile' THEN 4 ELSE 8 END,
			received_at, id, type, source, size, request_id, received_at, id, type, source, size, request_id,
			etag, mime_type, crc64, operation, upload_id, client_ip, vars
		FROM page WHERE $2 AND placed
		ON CONFLICT DO NOTHING
		RETURNING bucket, upload_id, first_at, first_id, first_mime_type, first_source, first_size
	)
	SELECT NULL, date_trunc('hour', first_at, 'UTC'), CASE WHEN octet_length(bucket) <= 255 THEN bucket ELSE '' END, '',
		first_mime_type, first_source, sum(first_size & 1073741823)::bigint, '', NULL, '', sum(first_size >> 30)::bigint, count(*),
		bool_or(touches)
	FROM (SELECT *, ` + mayTouch + ` AS touches FROM (SELECT *, first_at AS received_at FROM fresh) AS e) AS fresh
	GROUP BY 2, 3, 5, 6
	UNION ALL
	SELECT id, received_at, coalesce(bucket, ''), coalesce(object_key, ''), type, source, size, coalesce(request_id, ''),
		upload_id, coalesce(plain_etag, ''), 0, 0, ` + mayTouch + `
	FROM page e WHERE (SELECT count(*) FROM fresh) < (SELECT count(*) FROM page)
		AND (received_at, id) NOT IN (SELECT first_at, first_id FROM fresh)` // which is hashed, whatever the statistics say
}

var (
	pageByXID = pageSQL(`$3::text IS NULL AND recorded_xid IS NOT NULL
			AND (recorded_xid, id) >= ($4::xid8, $5::uuid) AND (recorded_xid, id) <= ($6::xid8, $7::uuid)`)
	pageByTime = pageSQL(`$3::text IS NOT NULL AND recorded_xid IS NULL
			AND (received_at, id) >= ($4::timestamptz, $5::uuid) AND (received_at, id) <= ($6::timestamptz, $7::uuid)`)
)

// read counts what of a page are new objects, if fast is set, and returns the other events.
func (b *batch) read(ctx context.Context, tx pgx.Tx, entries []feed.Entry, fast bool) (events []told, err error) {
	xid, at, id := entries[0].Cursor.Place()
	lastXID, lastAt, lastID := entries[len(entries)-1].Cursor.Place()
	name, sql, args := "upcall_rollup_page", pageByXID, []any{b.generation, fast, nil, xid, id, lastXID, lastID}
	if xid == 0 {
		name, sql, args = "upcall_rollup_nulls", pageByTime, []any{b.generation, fast, "", at, id, lastAt, lastID}
	}
	rows, err := query(ctx, tx, name, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	var e told
	var event uuid.NullUUID
	var gib *int64
	var n int64
	var touches bool
	fields := []any{&event, &e.at, &e.bucket, &e.key, &e.mime, &e.source, &e.size, &e.requestID, &e.uploadID, &e.etag, &gib, &n, &touches}
	_, err = pgx.ForEachRow(rows, fields, func() error {
		e.id, e.at = event.UUID, e.at.UTC()
		b.touches = b.touches || touches
		if event.Valid {
			events = append(events, e)
			return nil
		}
		c := b.counts.of(e.bucket, e.upload)
		c.uploads, c.newObjects, c.rest = c.uploads+n, c.newObjects+n, c.rest+e.size.Int64
		if gib != nil {
			c.gib += *gib
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	if err := placeNameless(ctx, tx, events); err != nil {
		return nil, fmt.Errorf("place events: %w", err)
	}
	return events, nil
}

// query runs a statement that is planned once for each connection.
func query(ctx context.Context, tx pgx.Tx, name, sql string, args ...any) (pgx.Rows, error) {
	statement, err := eventstore.Named(ctx, tx, name, sql)
	if err != nil {
		return nil, err
	}
	return tx.Query(ctx, statement, args...)
}

// exec runs a statement that is planned once for each connection, and returns how many rows it concerned.
func exec(ctx context.Context, tx pgx.Tx, name, sql string, args ...any) (int64, error) {
	rows, err := query(ctx, tx, name, sql, args...)
	if err != nil {
		return 0, err
	}
	rows.Close()
	return rows.CommandTag().RowsAffected(), rows.Err()
}

// without leaves events out that are not to be counted.
func without(events []told, not map[key]bool) (rest []told) {
	for _, e := range events {
		if !not[key{e.at, e.id}] {
			rest = append(rest, e)
		}
	}
	return rest
}

// A key is that of an event.
type key struct {
	at time.Time
	id uuid.UUID
}

func keyOf(e feed.Entry) key {
	return key{e.Event.ReceivedAt.UTC().Truncate(time.Microsecond), e.Event.ID}
}
