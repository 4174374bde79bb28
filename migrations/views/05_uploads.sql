-- The generation is a scalar subquery, so that it is a constant while the table is read, and
-- a key or the beginning of one is found by the primary key. Columns are as they are there: an
-- expression, or another collation, would have every object read.
--
-- A removal that OSS notified us of has OSS's time, so it is compared with OSS's time of the upload: the second in the
-- request id of a callback, within which the receiver's clock decides. That is when the request began, so
-- it counts only if the receiver got the callback within ten seconds, or else a former object may have been removed since.
CREATE OR REPLACE VIEW upcall.uploads AS
SELECT o.bucket, o.object_key, o.event_id, o.received_at, o.size, o.etag, o.crc64, o.mime_type, o.operation, o.request_id,
    o.upload_id, o.client_ip, o.vars, o.source, o.uploads, o.first_at, r.removed_at
FROM upcall.rollup_objects o
CROSS JOIN LATERAL (SELECT CASE WHEN o.source = 'callback' AND o.request_id ~ '^[0-9A-Fa-f]{24}$'
    THEN to_timestamp(('x' || left(o.request_id, 8))::bit(32)::bigint) END AS at) AS begun
LEFT JOIN upcall.removals r ON r.bucket = o.bucket AND r.object_key = o.object_key AND r.removed_at >= CASE
    WHEN r.source = 'notification' AND o.received_at BETWEEN begun.at - interval '10 seconds' AND begun.at + interval '10 seconds'
    THEN greatest(begun.at, least(o.received_at, begun.at + interval '1 second')) ELSE o.received_at END
WHERE o.generation = (SELECT generation FROM upcall.rollup_generations WHERE stage = 'current');

COMMENT ON VIEW upcall.uploads IS 'The current upload of each object, also of objects whose upload is no longer kept in upload_log. An upload whose callback named no bucket or key is here if the ledger does. Keys of more than about 2,600 bytes are not.';
COMMENT ON COLUMN upcall.uploads.bucket      IS 'Bucket of the object. Never null.';
COMMENT ON COLUMN upcall.uploads.object_key  IS 'Full object key. It sorts by bytes. Never null.';
COMMENT ON COLUMN upcall.uploads.event_id    IS 'upload_log.id of the latest upload. Never null.';
COMMENT ON COLUMN upcall.uploads.received_at IS 'upload_log.received_at of the latest upload. Never null.';
COMMENT ON COLUMN upcall.uploads.size        IS 'Size in bytes. Null if it is not known.';
COMMENT ON COLUMN upcall.uploads.etag        IS 'ETag, without quotes. Null if it is not known.';
COMMENT ON COLUMN upcall.uploads.crc64       IS 'CRC-64/XZ of the content as an unsigned 64-bit number. Null if it is not known.';
COMMENT ON COLUMN upcall.uploads.mime_type   IS 'Content type as the uploader gave it. Null if it is not known.';
COMMENT ON COLUMN upcall.uploads.operation   IS 'PutObject, PostObject or CompleteMultipartUpload. Null if it is not known.';
COMMENT ON COLUMN upcall.uploads.request_id  IS 'Request id of the latest upload in OSS. Null if it is not known, or longer than 128 bytes.';
COMMENT ON COLUMN upcall.uploads.upload_id   IS 'The issued upload that the latest upload is, as in upload_status. Null if it is none.';
COMMENT ON COLUMN upcall.uploads.client_ip   IS 'Address of the uploader. Null if it is not known, or was erased.';
COMMENT ON COLUMN upcall.uploads.vars        IS 'Custom variables of the latest upload. Null if they are not known, or were erased.';
COMMENT ON COLUMN upcall.uploads.source      IS 'What told of the latest upload: callback, notification or reconcile. Never null.';
COMMENT ON COLUMN upcall.uploads.uploads     IS 'How many uploads to the object were recorded; all but the latest were overwritten. Never null.';
COMMENT ON COLUMN upcall.uploads.first_at    IS 'received_at of the first of them. Never null.';
COMMENT ON COLUMN upcall.uploads.removed_at  IS 'When the object was removed from its bucket, or found to be gone. Null if it was not, or was uploaded again since.';
