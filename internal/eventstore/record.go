package eventstore

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

// noUpload is what callback_ids has for an upload_id that is null. It is there with ids of
// callbacks whose token was not looked at, too, and those were recorded all the same.
const noUpload = "'00000000-0000-0000-0000-000000000000'::uuid"

// insertEvents returns 'n' for what is new, and 'r' for what is refused since its upload
// was revoked.
//
// What is recorded already is no more refused: a repeat gets the answer of the first
// time. Nor is what was acknowledged: $21 holds the upload ids of all others. The bound
// on refusals keeps one upload, which OSS takes until it expires, from filling the table.
//
// An id that another transaction is about to commit makes ON CONFLICT wait for that
// transaction, so what is not returned is committed. The SELECT of fresh reads ids in the
// order of the array: all writers sort them, so that none waits for one who waits for him.
// Events are joined to what fresh returned, and not to what the table holds, because a
// statement does not see rows of its own.
const insertEvents = `
WITH suspect AS MATERIALIZED (
	SELECT upload_id, id FROM unnest($1::uuid[], $21::uuid[]) AS given (id, upload_id)
	JOIN upcall.revoked_uploads USING (upload_id)
), revoked AS MATERIALIZED (
	SELECT id FROM suspect
	WHERE NOT EXISTS (SELECT FROM upcall.callback_ids there WHERE there.upload_id IN (suspect.upload_id, ` + noUpload + `) AND there.id = suspect.id)
), refused AS (
	INSERT INTO upcall.refused_callbacks (digest, reason, refused_at, source_addr, bucket, object_key, upload_id)
	SELECT id, 'token_revoked', received_at, source_addr::inet, left(bucket, 1024), left(object_key, 1024), upload_id
	FROM unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::text[], $17::uuid[], $20::text[])
		AS given (id, received_at, bucket, object_key, upload_id, source_addr)
	WHERE id = ANY (ARRAY(SELECT id FROM revoked))
		AND (SELECT count(*) FROM upcall.refused_callbacks there WHERE there.upload_id = given.upload_id) < 100
	ON CONFLICT DO NOTHING
), fresh AS (
	INSERT INTO upcall.callback_ids (upload_id, id, received_at)
	SELECT coalesce(upload_id, ` + noUpload + `), id, received_at
	FROM unnest($1::uuid[], $2::timestamptz[], $17::uuid[]) AS given (id, received_at, upload_id)
	WHERE (id = ANY (ARRAY(
		SELECT id FROM revoked UNION ALL SELECT id FROM upcall.callback_ids WHERE upload_id = ` + noUpload + ` AND id = ANY ($1)
	))) IS NOT TRUE
	ON CONFLICT DO NOTHING
	RETURNING id
), recorded AS (
	INSERT INTO upcall.upload_events (id, received_at, bucket, object_key, etag, size, mime_type,
		image_width, image_height, image_format, crc64, content_md5, vpc_id, client_ip, request_id,
		operation, upload_id, vars, source)
	SELECT given.id, given.received_at, bucket, object_key, etag, size, mime_type,
		image_width, image_height, image_format, crc64::numeric, content_md5, vpc_id, client_ip::inet, request_id,
		operation, upload_id, vars, source
	FROM unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[],
		$8::integer[], $9::integer[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[],
		$16::text[], $17::uuid[], $18::jsonb[], $19::text[])
		AS given (id, received_at, bucket, object_key, etag, size, mime_type,
		image_width, image_height, image_format, crc64, content_md5, vpc_id, client_ip, request_id,
		operation, upload_id, vars, source)
	JOIN fresh USING (id)
	RETURNING id
)
SELECT id, 'n'::"char" FROM recorded UNION ALL SELECT id, 'r'::"char" FROM revoked`

// eventKind is how events are written.
var eventKind = kind[eventRow]{
	insert: statement{name: "upcall_record", sql: insertEvents, elements: []uint32{
		pgtype.UUIDOID, pgtype.TimestamptzOID, pgtype.TextOID, pgtype.TextOID, pgtype.TextOID, pgtype.Int8OID, pgtype.TextOID,
		pgtype.Int4OID, pgtype.Int4OID, pgtype.TextOID, pgtype.TextOID, pgtype.TextOID, pgtype.TextOID, pgtype.TextOID, pgtype.TextOID,
		pgtype.TextOID, pgtype.UUIDOID, pgtype.JSONBOID, pgtype.TextOID, pgtype.TextOID, pgtype.UUIDOID,
	}},
	encode: func(columns *columns, e *eventRow) {
		c, all := &e.Callback, columns.all
		all[0].uuid(e.ID)
		all[1].time(e.ReceivedAt)
		all[2].text(c.Bucket)
		all[3].text(c.Object)
		all[4].text(c.ETag)
		all[5].int64(c.Size)
		all[6].text(c.MimeType)
		all[7].int32(c.ImageWidth)
		all[8].int32(c.ImageHeight)
		all[9].text(c.ImageFormat)
		all[10].decimal(c.CRC64)
		all[11].text(c.ContentMD5)
		all[12].text(c.VPCID)
		all[13].addr(c.ClientIP)
		all[14].text(c.RequestID)
		all[15].text(c.Operation)
		all[16].nullUUID(e.UploadID)
		all[17].json(e.vars)
		all[18].text(string(e.Source))
		all[19].addr(e.SourceAddr)
		all[20].nullUUID(uuid.NullUUID{UUID: e.UploadID.UUID, Valid: e.UploadID.Valid && !e.Acknowledged})
	},
	join: func(kept, folded *eventRow) { kept.Acknowledged = kept.Acknowledged || folded.Acknowledged },
	// There is no partition for some of them.
	mend: func(ctx context.Context, pool *pgxpool.Pool, rows []*request[eventRow]) error {
		times := make([]time.Time, len(rows))
		for i, q := range rows {
			times[i] = q.row.ReceivedAt
		}
		return ensureMonths(ctx, pool, times)
	},
}
