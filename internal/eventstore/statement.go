package eventstore

// insertName is the name of the prepared statement on each connection.
const insertName = "upcall_record"

// insertEvents takes one array for each column, in the order of the columns, and returns
// the ids that are new.
//
// An id that another transaction is about to commit makes ON CONFLICT wait for that
// transaction, so what is not returned is committed. The first SELECT reads ids in the
// order of the array: all writers sort them, so that none waits for one who waits for him.
// Events are joined to what fresh returned, and not to what the table holds, because a
// statement does not see rows of its own.
const insertEvents = `
WITH fresh AS (
	INSERT INTO upcall.callback_ids (id, received_at)
	SELECT id, received_at FROM unnest($1::uuid[], $2::timestamptz[]) AS given (id, received_at)
	ON CONFLICT DO NOTHING
	RETURNING id
)
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
RETURNING id`
