package rollup

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// A copier copies what was received before a time from the current generation to the other, in
// steps, each in a transaction.
type copier struct {
	*stint
	before time.Time
}

func (c *copier) run(ctx context.Context) error {
	for _, part := range []func(context.Context) error{c.hours, c.versions, c.superseded, c.objects, c.latest} {
		if err := part(ctx); err != nil {
			return fmt.Errorf("copy roll-ups: %w", err)
		}
	}
	return nil
}

// step runs a statement with the parameters: the current generation, the other, the time, the number of
// rows, and the fields, which say where it begins. The statement returns where the next one
// begins, or no row.
func (c *copier) step(ctx context.Context, sql string, fields ...any) (more bool, err error) {
	args := []any{c.mine.number, c.other.number, c.before, stepRows}
	for _, f := range fields {
		switch f := f.(type) {
		case *string:
			args = append(args, *f)
		case *time.Time:
			args = append(args, *f)
		case *int64:
			args = append(args, *f)
		case *uuid.UUID:
			args = append(args, *f)
		}
	}
	err = c.lease.Commit(ctx, c.lease.Cursor(), func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		_, err = pgx.ForEachRow(rows, fields, func() error { more = true; return nil })
		return err
	})
	return more, err
}

func (c *copier) hours(ctx context.Context) error {
	var hour time.Time
	var bucket, mime, source string
	for more := true; more; {
		var err error
		more, err = c.step(ctx, `
			WITH page AS (
				SELECT * FROM upcall.rollup_hourly WHERE generation = $1 AND hour < $3
					AND (hour, bucket, mime_type, source) > ($5::timestamptz, $6::text, $7::text, $8::text)
				ORDER BY hour, bucket, mime_type, source LIMIT $4
			), copied AS (
				INSERT INTO upcall.rollup_hourly (generation, hour, bucket, mime_type, source, uploads, bytes, new_objects, overwrites)
				SELECT $2::smallint, hour, bucket, mime_type, source, uploads, bytes, new_objects, overwrites FROM page
			)
			SELECT hour, bucket, mime_type, source FROM page ORDER BY hour DESC, bucket DESC, mime_type DESC, source DESC LIMIT 1`,
			&hour, &bucket, &mime, &source)
		if err != nil {
			return err
		}
	}
	return nil
}

// versions copies the uploads in between, with the numbers of their objects.
func (c *copier) versions(ctx context.Context) error {
	var number int64
	var at time.Time
	var id uuid.UUID
	for more := true; more; {
		var err error
		more, err = c.step(ctx, `
			WITH page AS (
				SELECT * FROM upcall.rollup_versions WHERE generation = $1
					AND (number, received_at, event_id) > ($5::bigint, $6::timestamptz, $7::uuid)
				ORDER BY number, received_at, event_id LIMIT $4
			), copied AS (
				INSERT INTO upcall.rollup_versions (generation, number, received_at, event_id, mime_type, source, size, request_id,
					upload_id, etag)
				SELECT $2::smallint, number, received_at, event_id, mime_type, source, size, request_id, upload_id, etag
				FROM page WHERE received_at < $3
			)
			SELECT number, received_at, event_id FROM page ORDER BY number DESC, received_at DESC, event_id DESC LIMIT 1`,
			&number, &at, &id)
		if err != nil {
			return err
		}
	}
	return nil
}

// superseded copies which events do not count.
func (c *copier) superseded(ctx context.Context) error {
	var at time.Time
	var id uuid.UUID
	for more := true; more; {
		var err error
		more, err = c.step(ctx, `
			WITH page AS (
				SELECT * FROM upcall.rollup_superseded WHERE generation = $1 AND received_at < $3
					AND (received_at, event_id) > ($5::timestamptz, $6::uuid)
				ORDER BY received_at, event_id LIMIT $4
			), copied AS (
				INSERT INTO upcall.rollup_superseded (generation, received_at, event_id, upload_id)
				SELECT $2::smallint, received_at, event_id, upload_id FROM page
			)
			SELECT received_at, event_id FROM page ORDER BY received_at DESC, event_id DESC LIMIT 1`, &at, &id)
		if err != nil {
			return err
		}
	}
	return nil
}

// objects copies objects without the uploads that were received later.
func (c *copier) objects(ctx context.Context) error {
	var bucket, key string
	for more := true; more; {
		var err error
		more, err = c.step(ctx, `
			WITH page AS (
				SELECT * FROM upcall.rollup_objects WHERE generation = $1 AND (object_key, bucket) > ($5::text, $6::text)
				ORDER BY object_key, bucket LIMIT $4
			), copied AS (
				INSERT INTO upcall.rollup_objects (generation, bucket, object_key, number, sources, `+firstNames+`,
					uploads, received_at, event_id, hourly_mime_type, source, size, request_id,
					etag, mime_type, crc64, operation, upload_id, client_ip, vars)
				SELECT $2::smallint, o.bucket, o.object_key, o.number, o.sources, `+firstNames+`,
					o.uploads, o.received_at, o.event_id, o.hourly_mime_type, o.source, o.size, o.request_id,
					o.etag, o.mime_type, o.crc64, o.operation, o.upload_id, o.client_ip, o.vars
				FROM page o WHERE o.received_at < $3
				UNION ALL
				SELECT $2::smallint, o.bucket, o.object_key, o.number, o.sources, `+firstNames+`,
					1 + (SELECT count(*) FROM upcall.rollup_versions v
						WHERE v.generation = $2 AND v.number = o.number),
					coalesce(v.received_at, first_at), coalesce(v.event_id, first_id), coalesce(v.mime_type, first_mime_type),
					coalesce(v.source, first_source), CASE WHEN v.number IS NULL THEN first_size ELSE v.size END,
					CASE WHEN v.number IS NULL THEN first_request_id ELSE v.request_id END,
					CASE WHEN v.number IS NULL THEN first_etag ELSE v.etag END,
					nullif(coalesce(v.mime_type, first_mime_type), ''), NULL, NULL,
					CASE WHEN v.number IS NULL THEN first_upload_id ELSE v.upload_id END, NULL, NULL
				FROM page o LEFT JOIN LATERAL (
					SELECT * FROM upcall.rollup_versions WHERE generation = $2 AND number = o.number
					ORDER BY received_at DESC, event_id DESC LIMIT 1
				) v ON true
				WHERE o.first_at < $3 AND o.received_at >= $3
			)
			SELECT object_key, bucket FROM page ORDER BY object_key DESC, bucket DESC LIMIT 1`, &key, &bucket)
		if err != nil {
			return err
		}
	}
	return nil
}

const firstNames = "first_at, first_id, first_mime_type, first_source, first_size, first_request_id, " +
	"first_upload_id, first_etag"

// latest deletes versions that have become the latest of their object.
func (c *copier) latest(ctx context.Context) error {
	var bucket, key string
	for more := true; more; {
		var err error
		more, err = c.step(ctx, `
			WITH page AS (
				SELECT * FROM upcall.rollup_objects WHERE generation = $2 AND (object_key, bucket) > ($5::text, $6::text)
				ORDER BY object_key, bucket LIMIT $4
			), gone AS (
				DELETE FROM upcall.rollup_versions v USING page o
				WHERE v.generation = $2 AND v.number = o.number AND v.received_at = o.received_at AND v.event_id = o.event_id
			)
			SELECT object_key, bucket FROM page WHERE $1::smallint IS NOT NULL AND $3::timestamptz IS NOT NULL
			ORDER BY object_key DESC, bucket DESC LIMIT 1`, &key, &bucket)
		if err != nil {
			return err
		}
	}
	return nil
}
