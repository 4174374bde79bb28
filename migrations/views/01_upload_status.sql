-- How often an issued upload was used, of which some event does not count: few are. It is as its owner's,
-- so that those who may read the view need not read tables.
CREATE OR REPLACE FUNCTION upcall.uses_of(upload uuid, OUT events bigint, OUT first_at timestamptz)
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = '' SET jit = off
AS $$
SELECT count(*), min(c.received_at)
FROM upcall.callback_ids c
WHERE c.upload_id = (SELECT u.upload_id FROM upcall.issued_uploads u WHERE u.upload_id = $1) AND NOT EXISTS (
    SELECT FROM upcall.rollup_superseded s JOIN upcall.rollup_generations g USING (generation)
    WHERE g.stage = 'current' AND s.received_at = c.received_at AND s.event_id = c.id
)
$$;
GRANT EXECUTE ON FUNCTION upcall.uses_of(uuid) TO PUBLIC;

-- The events of an upload are looked up in callback_ids, in one index whatever the number of months.
-- Joins are such that the planner drops those that a query does not need: what is joined is unique, and the
-- look-up comes first, because it keeps what is before it.
CREATE OR REPLACE VIEW upcall.upload_status AS
SELECT u.upload_id, u.bucket, u.object_key, u.issued_at, u.expires_at, r.revoked_at, u.api_key_id,
    CASE
        WHEN r.revoked_at IS NOT NULL THEN 'revoked'
        WHEN used.events > 0 THEN 'uploaded'
        WHEN u.expires_at <= now() THEN 'expired'
        ELSE 'issued'
    END AS status,
    used.events,
    used.first_at AS uploaded_at,
    used.first_at - u.issued_at AS time_to_upload,
    NOT u.by_prefix AND (used.events > 1
        OR used.events = 1 AND coalesce(o.received_at >= used.first_at AND o.upload_id IS DISTINCT FROM u.upload_id, false)) AS overwritten,
    u.by_prefix
FROM upcall.issued_uploads u
LEFT JOIN LATERAL (
    SELECT count(*) AS events, min(c.received_at) AS first_at FROM upcall.callback_ids c WHERE c.upload_id = u.upload_id
) told ON true
LEFT JOIN upcall.revoked_uploads r USING (upload_id)
LEFT JOIN (
    SELECT DISTINCT s.upload_id FROM upcall.rollup_superseded s
    WHERE s.generation = (SELECT generation FROM upcall.rollup_generations WHERE stage = 'current')
) told_twice USING (upload_id)
LEFT JOIN upcall.rollup_objects o ON o.generation = (SELECT generation FROM upcall.rollup_generations WHERE stage = 'current')
    AND o.object_key = u.object_key AND o.bucket = u.bucket
CROSS JOIN LATERAL (
    SELECT CASE WHEN told_twice.upload_id IS NULL THEN told.events ELSE (upcall.uses_of(u.upload_id)).events END AS events,
        CASE WHEN told_twice.upload_id IS NULL THEN told.first_at ELSE (upcall.uses_of(u.upload_id)).first_at END AS first_at
) used;

COMMENT ON VIEW upcall.upload_status IS 'What became of each issued upload. Give a range of issued_at.';
COMMENT ON COLUMN upcall.upload_status.upload_id      IS 'Identity of the upload, which its token carries. Never null.';
COMMENT ON COLUMN upcall.upload_status.bucket         IS 'Bucket of the object. Never null.';
COMMENT ON COLUMN upcall.upload_status.object_key     IS 'Full object key, or its beginning, see by_prefix. Never null.';
COMMENT ON COLUMN upcall.upload_status.issued_at      IS 'When it was issued, by the issuer''s clock. Never null.';
COMMENT ON COLUMN upcall.upload_status.expires_at     IS 'Until when OSS lets the upload begin, by the issuer''s clock. Never null.';
COMMENT ON COLUMN upcall.upload_status.revoked_at     IS 'Since when its callbacks are refused, by PostgreSQL''s clock. Null if it was not revoked.';
COMMENT ON COLUMN upcall.upload_status.api_key_id     IS 'Id of the API key that asked for it. Null if it was issued on the command line.';
COMMENT ON COLUMN upcall.upload_status.status         IS 'The first that is true of: revoked, uploaded, expired (and never used, by PostgreSQL''s clock), issued. Never null.';
COMMENT ON COLUMN upcall.upload_status.events         IS 'How often it was used, each time once. Never null.';
COMMENT ON COLUMN upcall.upload_status.uploaded_at    IS 'When the first of them was received, by the receiver''s clock. Null if there is none.';
COMMENT ON COLUMN upcall.upload_status.time_to_upload IS 'From issued_at to uploaded_at; negative if the two clocks differ by more. Null if it was not uploaded.';
COMMENT ON COLUMN upcall.upload_status.overwritten    IS 'Whether what it uploaded first was replaced, by using it again or by another upload to the same object that the roll-ups have read; false if by_prefix. Never null.';
COMMENT ON COLUMN upcall.upload_status.by_prefix      IS 'Whether object_key is only the beginning of the keys of what was uploaded. Never null.';
