CREATE OR REPLACE VIEW upcall.upload_log AS
SELECT e.id, e.received_at, e.bucket, e.object_key, e.etag, e.size, e.mime_type, e.image_width, e.image_height, e.image_format,
    e.crc64, e.content_md5, e.vpc_id, e.client_ip, e.request_id, e.operation, e.upload_id, e.vars, e.source, e.recorded_xid
FROM upcall.upload_events e
WHERE NOT EXISTS (
    SELECT FROM upcall.rollup_superseded s
    WHERE s.generation = (SELECT generation FROM upcall.rollup_generations WHERE stage = 'current')
        AND s.received_at = e.received_at AND s.event_id = e.id
);

COMMENT ON VIEW upcall.upload_log IS 'Each upload once, however often it was told of. Give a range of received_at: only its months are read then.';
COMMENT ON COLUMN upcall.upload_log.id           IS 'Identity of the event: a digest of the callback''s signed content; of what a notification or a listing told, of bucket, key, and request id or ETag and time. Never null.';
COMMENT ON COLUMN upcall.upload_log.received_at  IS 'When the receiver had read the callback, by its own clock. Of what a notification or a listing told, when the object was stored, by OSS''s clock. Never null.';
COMMENT ON COLUMN upcall.upload_log.bucket       IS 'Bucket of the object. Null if neither the body nor the x-oss-bucket header named it.';
COMMENT ON COLUMN upcall.upload_log.object_key   IS 'Full object key. Null if the body did not hold it.';
COMMENT ON COLUMN upcall.upload_log.etag         IS 'ETag of the object, without quotes. Null if the body did not hold it.';
COMMENT ON COLUMN upcall.upload_log.size         IS 'Size of the whole object in bytes. Null if the body did not hold it.';
COMMENT ON COLUMN upcall.upload_log.mime_type    IS 'Content type of the object, as the uploader gave it. Null if the body did not hold it.';
COMMENT ON COLUMN upcall.upload_log.image_width  IS 'Width in pixels. Null if the object is no image that OSS knows, or the body did not hold it.';
COMMENT ON COLUMN upcall.upload_log.image_height IS 'Height in pixels. Null if the object is no image that OSS knows, or the body did not hold it.';
COMMENT ON COLUMN upcall.upload_log.image_format IS 'Format of the image, such as jpg or png. Null if the object is no image that OSS knows, or the body did not hold it.';
COMMENT ON COLUMN upcall.upload_log.crc64        IS 'CRC-64/XZ of the content as an unsigned 64-bit number, like the header x-oss-hash-crc64ecma. Null if the body did not hold it.';
COMMENT ON COLUMN upcall.upload_log.content_md5  IS 'MD5 of the content in Base64. Null after CompleteMultipartUpload, or if the body did not hold it.';
COMMENT ON COLUMN upcall.upload_log.vpc_id       IS 'VPC that the uploader came through. Null if they came over the internet, or the body did not hold it.';
COMMENT ON COLUMN upcall.upload_log.client_ip    IS 'Address of the uploader as OSS saw it. Null if the body did not hold it, or it was erased.';
COMMENT ON COLUMN upcall.upload_log.request_id   IS 'Request id of the upload in OSS. Null if the body did not hold it.';
COMMENT ON COLUMN upcall.upload_log.operation    IS 'PutObject, PostObject or CompleteMultipartUpload. Null if the body did not hold it.';
COMMENT ON COLUMN upcall.upload_log.upload_id    IS 'The issued upload that this is, as in upload_status. Null if the callback had no valid token and none was required.';
COMMENT ON COLUMN upcall.upload_log.vars         IS 'Custom variables and whatever else the body held, by name. Empty object if there was nothing else, or it was erased; never null.';
COMMENT ON COLUMN upcall.upload_log.source       IS 'What told of the upload: callback, notification or reconcile. Never null.';
COMMENT ON COLUMN upcall.upload_log.recorded_xid IS 'The transaction that wrote the row; with id, its place in the log. Null in rows from before migration 8.';
