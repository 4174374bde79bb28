-- The views as in 0002, for older programs and migrations.
DROP VIEW IF EXISTS upcall.upload_funnel, upcall.upload_status;
DROP TABLE upcall.schema_views;

CREATE VIEW upcall.upload_status AS
SELECT u.upload_id, u.bucket, u.object_key, u.issued_at, u.expires_at, r.revoked_at, u.api_key_id,
    CASE
        WHEN r.revoked_at IS NOT NULL THEN 'revoked'
        WHEN e.events > 0 THEN 'uploaded'
        WHEN u.expires_at <= now() THEN 'expired'
        ELSE 'issued'
    END AS status,
    e.events,
    e.first_at AS uploaded_at,
    e.first_at - u.issued_at AS time_to_upload,
    e.events > 1 OR e.events = 1 AND EXISTS (
        SELECT FROM upcall.issued_uploads other JOIN upcall.upload_events later USING (upload_id)
        WHERE other.bucket = u.bucket AND other.object_key = u.object_key AND other.upload_id <> u.upload_id
            AND later.received_at > e.first_at
    ) AS overwritten
FROM upcall.issued_uploads u
LEFT JOIN upcall.revoked_uploads r USING (upload_id)
CROSS JOIN LATERAL (
    SELECT count(*) AS events, min(received_at) AS first_at FROM upcall.upload_events WHERE upload_id = u.upload_id
) e;

COMMENT ON VIEW upcall.upload_status IS 'What became of each issued upload.';
COMMENT ON COLUMN upcall.upload_status.upload_id      IS 'issued_uploads.upload_id. Never null.';
COMMENT ON COLUMN upcall.upload_status.bucket         IS 'issued_uploads.bucket. Never null.';
COMMENT ON COLUMN upcall.upload_status.object_key     IS 'issued_uploads.object_key. Never null.';
COMMENT ON COLUMN upcall.upload_status.issued_at      IS 'issued_uploads.issued_at. Never null.';
COMMENT ON COLUMN upcall.upload_status.expires_at     IS 'issued_uploads.expires_at. Never null.';
COMMENT ON COLUMN upcall.upload_status.revoked_at     IS 'revoked_uploads.revoked_at. Null when it was not revoked.';
COMMENT ON COLUMN upcall.upload_status.api_key_id     IS 'issued_uploads.api_key_id. Null when it was issued on the command line.';
COMMENT ON COLUMN upcall.upload_status.status         IS 'The first that is true of: revoked, uploaded, expired (and never used, by PostgreSQL''s clock), issued. Never null.';
COMMENT ON COLUMN upcall.upload_status.events         IS 'How many callbacks of it were recorded, one for each time that it was used. Never null.';
COMMENT ON COLUMN upcall.upload_status.uploaded_at    IS 'When the first of them was received, by the receiver''s clock. Null when there is none.';
COMMENT ON COLUMN upcall.upload_status.time_to_upload IS 'From issued_at to uploaded_at; negative if the two clocks differ by more. Null when it was not uploaded.';
COMMENT ON COLUMN upcall.upload_status.overwritten    IS 'Whether what it uploaded first was replaced, by using it again or by another issued upload to the same object. Never null.';

-- Day by day, so that a query for some days reads only those days, by the indexes on time
-- and the partitions.
CREATE VIEW upcall.upload_funnel AS
SELECT days.day::date AS day, used.bucket,
    count(*) FILTER (WHERE used.issued) AS issued,
    count(*) FILTER (WHERE used.issued AND used.events > 0) AS uploaded,
    count(*) FILTER (WHERE used.status = 'issued') AS pending,
    count(*) FILTER (WHERE used.status = 'expired') AS expired_unused,
    count(*) FILTER (WHERE used.status = 'revoked') AS revoked,
    count(*) FILTER (WHERE used.overwritten) AS overwritten,
    count(*) FILTER (WHERE NOT used.issued) AS unissued,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY used.time_to_upload) AS median_time_to_upload,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY used.time_to_upload) AS p95_time_to_upload
FROM (
    SELECT least((SELECT min(issued_at) FROM upcall.issued_uploads), (SELECT min(received_at) FROM upcall.upload_events)) AS first_at,
        greatest((SELECT max(issued_at) FROM upcall.issued_uploads), (SELECT max(received_at) FROM upcall.upload_events)) AS last_at
) ends
CROSS JOIN LATERAL generate_series(date_trunc('day', ends.first_at AT TIME ZONE 'UTC'), ends.last_at AT TIME ZONE 'UTC', '1 day') AS days (day)
CROSS JOIN LATERAL (
    SELECT true AS issued, bucket, status, events, overwritten, time_to_upload
    FROM upcall.upload_status
    WHERE issued_at >= days.day AT TIME ZONE 'UTC' AND issued_at < (days.day + interval '1 day') AT TIME ZONE 'UTC'
    UNION ALL
    SELECT false, bucket, NULL, 1, false, NULL
    FROM upcall.upload_events e
    WHERE received_at >= days.day AT TIME ZONE 'UTC' AND received_at < (days.day + interval '1 day') AT TIME ZONE 'UTC'
        AND NOT EXISTS (SELECT FROM upcall.issued_uploads u WHERE u.upload_id = e.upload_id)
) used
GROUP BY days.day, used.bucket;

COMMENT ON VIEW upcall.upload_funnel IS 'What became of the uploads issued on each day, by bucket; and the callbacks received on it that belong to none.';
COMMENT ON COLUMN upcall.upload_funnel.day                   IS 'Day in UTC on which the uploads were issued. Never null.';
COMMENT ON COLUMN upcall.upload_funnel.bucket                IS 'Bucket. Null for callbacks that named none.';
COMMENT ON COLUMN upcall.upload_funnel.issued                IS 'How many uploads were issued. Never null.';
COMMENT ON COLUMN upcall.upload_funnel.uploaded              IS 'How many of them were uploaded, whenever that was. Never null.';
COMMENT ON COLUMN upcall.upload_funnel.pending               IS 'How many of them may still be used and were not. Never null.';
COMMENT ON COLUMN upcall.upload_funnel.expired_unused        IS 'How many of them expired before they were used. Never null.';
COMMENT ON COLUMN upcall.upload_funnel.revoked               IS 'How many of them were revoked, before or after they were used. Never null.';
COMMENT ON COLUMN upcall.upload_funnel.overwritten           IS 'How many of those uploaded were replaced later, see upload_status.overwritten. Never null.';
COMMENT ON COLUMN upcall.upload_funnel.unissued              IS 'How many callbacks were recorded on this day for uploads that the ledger does not hold. They are in no other column. Never null.';
COMMENT ON COLUMN upcall.upload_funnel.median_time_to_upload IS 'Half of those uploaded took less time from being issued to their first callback. Null when none was uploaded.';
COMMENT ON COLUMN upcall.upload_funnel.p95_time_to_upload    IS '95 % of those uploaded took less time from being issued to their first callback. Null when none was uploaded.';
