-- One day, in a function, so that the planner's guess at many days does not have the whole query
-- compiled by JIT. It is as its owner's, so that those who may read the view need not read tables.
CREATE OR REPLACE FUNCTION upcall.funnel_of(day date)
RETURNS TABLE (
    bucket text, issued bigint, uploaded bigint, unused bigint, revoked bigint, overwritten bigint, unissued bigint,
    median interval, p95 interval, unused_until timestamptz[]
)
LANGUAGE sql STABLE SECURITY DEFINER ROWS 10 SET search_path = '' SET jit = off
AS $$
SELECT used.bucket,
    count(*) FILTER (WHERE used.issued),
    count(*) FILTER (WHERE used.issued AND used.events > 0),
    count(*) FILTER (WHERE used.status IN ('issued', 'expired')),
    count(*) FILTER (WHERE used.status = 'revoked'),
    count(*) FILTER (WHERE used.overwritten),
    count(*) FILTER (WHERE NOT used.issued),
    percentile_cont(0.5) WITHIN GROUP (ORDER BY used.time_to_upload),
    percentile_cont(0.95) WITHIN GROUP (ORDER BY used.time_to_upload),
    coalesce(array_agg(used.expires_at) FILTER (WHERE used.status = 'issued'), '{}')
FROM (
    SELECT true AS issued, s.bucket, s.status, s.events, s.overwritten, s.time_to_upload, s.expires_at
    FROM upcall.upload_status s
    WHERE s.issued_at >= $1::timestamp AT TIME ZONE 'UTC' AND s.issued_at < ($1 + 1)::timestamp AT TIME ZONE 'UTC'
    UNION ALL
    SELECT false, l.bucket, NULL, 1, false, NULL, NULL
    FROM upcall.upload_log l
    WHERE l.received_at >= $1::timestamp AT TIME ZONE 'UTC' AND l.received_at < ($1 + 1)::timestamp AT TIME ZONE 'UTC'
        AND NOT EXISTS (SELECT FROM upcall.issued_uploads u WHERE u.upload_id = l.upload_id)
) AS used
GROUP BY used.bucket
$$;
GRANT EXECUTE ON FUNCTION upcall.funnel_of(date) TO PUBLIC;

-- Days that are stored, and those that are not, from the first to the last that there is.
CREATE OR REPLACE VIEW upcall.upload_funnel AS
SELECT days.day, nullif(f.bucket, '') AS bucket, f.issued, f.uploaded, open.uploads AS pending, f.unused - open.uploads AS expired_unused,
    f.revoked, f.overwritten + coalesce(o.uploads, 0) AS overwritten, f.unissued,
    f.median AS median_time_to_upload, f.p95 AS p95_time_to_upload
FROM upcall.rollup_days days
JOIN upcall.rollup_funnel f ON f.day = days.day
LEFT JOIN upcall.rollup_overwritten o ON o.day = f.day AND o.bucket = f.bucket
CROSS JOIN LATERAL (SELECT count(*) AS uploads FROM unnest(f.unused_until) AS until (at) WHERE until.at > now()) AS open
WHERE days.stored
UNION ALL
SELECT days.day, f.bucket, f.issued, f.uploaded, open.uploads, f.unused - open.uploads,
    f.revoked, f.overwritten, f.unissued, f.median, f.p95
FROM (
    SELECT first_at + number AS day
    FROM (
        SELECT (least((SELECT min(issued_at) FROM upcall.issued_uploads), (SELECT min(received_at) FROM upcall.upload_events))
                AT TIME ZONE 'UTC')::date AS first_at,
            (greatest((SELECT max(issued_at) FROM upcall.issued_uploads), (SELECT max(received_at) FROM upcall.upload_events))
                AT TIME ZONE 'UTC')::date AS last_at
    ) AS ends
    CROSS JOIN LATERAL generate_series(0, last_at - first_at) AS number
) AS days
CROSS JOIN LATERAL upcall.funnel_of(days.day) AS f
CROSS JOIN LATERAL (SELECT count(*) AS uploads FROM unnest(f.unused_until) AS until (at) WHERE until.at > now()) AS open
WHERE NOT EXISTS (SELECT FROM upcall.rollup_days stored WHERE stored.day = days.day AND stored.stored);

COMMENT ON VIEW upcall.upload_funnel IS 'What became of the uploads issued on each day, by bucket; and the events received on it that belong to none.';
COMMENT ON COLUMN upcall.upload_funnel.day                   IS 'Day in UTC on which the uploads were issued. Never null.';
COMMENT ON COLUMN upcall.upload_funnel.bucket                IS 'Bucket. Null for events that named none.';
COMMENT ON COLUMN upcall.upload_funnel.issued                IS 'How many uploads were issued. Never null.';
COMMENT ON COLUMN upcall.upload_funnel.uploaded              IS 'How many of them were uploaded, whenever that was. Never null.';
COMMENT ON COLUMN upcall.upload_funnel.pending               IS 'How many of them may still be used and were not. Never null.';
COMMENT ON COLUMN upcall.upload_funnel.expired_unused        IS 'How many of them expired before they were used. Never null.';
COMMENT ON COLUMN upcall.upload_funnel.revoked               IS 'How many of them were revoked, before or after they were used. Never null.';
COMMENT ON COLUMN upcall.upload_funnel.overwritten           IS 'How many of those uploaded were replaced later, see upload_status.overwritten. Never null.';
COMMENT ON COLUMN upcall.upload_funnel.unissued              IS 'How many events were received on this day that belong to no issued upload. They are in no other column. Never null.';
COMMENT ON COLUMN upcall.upload_funnel.median_time_to_upload IS 'Half of those uploaded took less time from being issued to their first event. Null if none was uploaded.';
COMMENT ON COLUMN upcall.upload_funnel.p95_time_to_upload    IS '95 % of those uploaded took less time from being issued to their first event. Null if none was uploaded.';
