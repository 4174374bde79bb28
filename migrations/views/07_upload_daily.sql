CREATE OR REPLACE VIEW upcall.upload_daily AS
SELECT (hour AT TIME ZONE 'UTC')::date AS day, bucket, mime_type, source, sum(uploads)::bigint AS uploads, sum(bytes) AS bytes,
    sum(new_objects)::bigint AS new_objects, sum(overwrites)::bigint AS overwrites
FROM upcall.upload_hourly
GROUP BY 1, bucket, mime_type, source;

COMMENT ON VIEW upcall.upload_daily IS 'upload_hourly by day. For days of another time zone, sum up upload_hourly.';
COMMENT ON COLUMN upcall.upload_daily.day         IS 'Day of received_at in UTC. Never null.';
COMMENT ON COLUMN upcall.upload_daily.bucket      IS 'Bucket. Null if the uploads named none, or one of more than 255 bytes.';
COMMENT ON COLUMN upcall.upload_daily.mime_type   IS 'Content type as in upload_hourly. Null if the uploads had none.';
COMMENT ON COLUMN upcall.upload_daily.source      IS 'What told of the uploads: callback, notification or reconcile. Never null.';
COMMENT ON COLUMN upcall.upload_daily.uploads     IS 'How many uploads. Never null.';
COMMENT ON COLUMN upcall.upload_daily.bytes       IS 'Sum of their sizes in bytes; unknown sizes are 0. Never null.';
COMMENT ON COLUMN upcall.upload_daily.new_objects IS 'How many of them were the first to their object. Never null.';
COMMENT ON COLUMN upcall.upload_daily.overwrites  IS 'How many of them were not. Those in neither had no bucket, or no key that could be indexed. Never null.';
