CREATE OR REPLACE VIEW upcall.upload_loss AS
SELECT day, bucket, received, by_notification, by_reconcile,
    (by_notification + by_reconcile)::double precision / nullif(received + by_notification + by_reconcile, 0) AS lost_share
FROM (
    SELECT (hour AT TIME ZONE 'UTC')::date AS day, bucket,
        coalesce(sum(uploads) FILTER (WHERE source = 'callback'), 0)::bigint AS received,
        coalesce(sum(uploads) FILTER (WHERE source = 'notification'), 0)::bigint AS by_notification,
        coalesce(sum(uploads) FILTER (WHERE source = 'reconcile'), 0)::bigint AS by_reconcile
    FROM upcall.upload_hourly
    GROUP BY 1, bucket
) AS days;

COMMENT ON VIEW upcall.upload_loss IS 'How many uploads no callback told of, by day and bucket.';
COMMENT ON COLUMN upcall.upload_loss.day             IS 'Day of the upload in UTC. Never null.';
COMMENT ON COLUMN upcall.upload_loss.bucket          IS 'Bucket. Null if the uploads named none, or one of more than 255 bytes.';
COMMENT ON COLUMN upcall.upload_loss.received        IS 'How many uploads a callback told of. Never null.';
COMMENT ON COLUMN upcall.upload_loss.by_notification IS 'How many only a notification told of. Never null.';
COMMENT ON COLUMN upcall.upload_loss.by_reconcile    IS 'How many only a listing of the bucket told of. Never null.';
COMMENT ON COLUMN upcall.upload_loss.lost_share      IS 'by_notification and by_reconcile as a share of all three, from 0 to 1. Null if there is none of the three.';
