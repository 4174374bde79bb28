CREATE OR REPLACE VIEW upcall.upload_hourly AS
SELECT hour, nullif(bucket, '') AS bucket, nullif(mime_type, '') AS mime_type, source, uploads, bytes, new_objects, overwrites
FROM upcall.rollup_hourly
WHERE uploads <> 0 AND generation = (SELECT generation FROM upcall.rollup_generations WHERE stage = 'current');

COMMENT ON VIEW upcall.upload_hourly IS 'Uploads by the hour in which they were received, each once, also of months that are no longer kept in upload_log.';
COMMENT ON COLUMN upcall.upload_hourly.hour        IS 'Beginning of the hour of received_at. Never null.';
COMMENT ON COLUMN upcall.upload_hourly.bucket      IS 'Bucket. Null if the uploads named none, or one of more than 255 bytes.';
COMMENT ON COLUMN upcall.upload_hourly.mime_type   IS 'Content type in lower case without parameters, image/jpeg for image/jpg; "other" after the first 200 of an hour and bucket, and if longer than 255 bytes. Null if the uploads had none.';
COMMENT ON COLUMN upcall.upload_hourly.source      IS 'What told of the uploads: callback, notification or reconcile. Never null.';
COMMENT ON COLUMN upcall.upload_hourly.uploads     IS 'How many uploads. Never null.';
COMMENT ON COLUMN upcall.upload_hourly.bytes       IS 'Sum of their sizes in bytes; unknown sizes are 0. Never null.';
COMMENT ON COLUMN upcall.upload_hourly.new_objects IS 'How many of them were the first to their object. Never null.';
COMMENT ON COLUMN upcall.upload_hourly.overwrites  IS 'How many of them were not. Those in neither had no bucket, or no key that could be indexed. Never null.';
