CREATE OR REPLACE VIEW upcall.upload_status AS
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
