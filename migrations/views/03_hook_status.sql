CREATE OR REPLACE VIEW upcall.hook_status AS
SELECT e.id, e.name,
    CASE WHEN e.state = 'active' AND e.failing_since IS NOT NULL THEN 'failing' ELSE e.state END AS state,
    e.reason, e.failing_since, e.probe_at,
    coalesce(r.waiting, 0) AS waiting,
    coalesce(r.dead_letters, 0) AS dead_letters,
    coalesce(n.delivered, 0) AS delivered_24h,
    coalesce(n.failed, 0) AS failed_24h,
    c.updated_at AS read_until,
    e.created_at, e.changed_at
FROM upcall.hook_endpoints e
LEFT JOIN upcall.feed_consumers c ON c.name = 'hook/' || e.id::text
LEFT JOIN LATERAL (
    SELECT count(*) FILTER (WHERE due_at IS NOT NULL) AS waiting, count(*) FILTER (WHERE due_at IS NULL) AS dead_letters
    FROM upcall.hook_retries WHERE endpoint_id = e.id
) r ON true
LEFT JOIN LATERAL (
    SELECT sum(attempts) FILTER (WHERE outcome = 'delivered')::bigint AS delivered,
        sum(attempts) FILTER (WHERE outcome <> 'delivered')::bigint AS failed
    FROM upcall.hook_counts WHERE endpoint_id = e.id AND hour > now() - interval '25 hours'
) n ON true
WHERE e.state <> 'removing';

COMMENT ON VIEW upcall.hook_status IS 'The endpoints of hooks and how they are doing, without URLs and secrets.';
COMMENT ON COLUMN upcall.hook_status.id            IS 'hook_endpoints.id. Never null.';
COMMENT ON COLUMN upcall.hook_status.name          IS 'hook_endpoints.name. Never null.';
COMMENT ON COLUMN upcall.hook_status.state         IS 'active; failing, if only probes are sent; paused by an operator; or disabled. Never null.';
COMMENT ON COLUMN upcall.hook_status.reason        IS 'Why it is failing or disabled. Null if it is not.';
COMMENT ON COLUMN upcall.hook_status.failing_since IS 'The first failure since the last success. Null unless it is failing or disabled.';
COMMENT ON COLUMN upcall.hook_status.probe_at      IS 'When the next probe is due. Null unless it is failing.';
COMMENT ON COLUMN upcall.hook_status.waiting       IS 'Deliveries that failed and wait for the next attempt. Never null.';
COMMENT ON COLUMN upcall.hook_status.dead_letters  IS 'Deliveries that failed for the last time. Never null.';
COMMENT ON COLUMN upcall.hook_status.delivered_24h IS 'Attempts that succeeded in the last 24 hours and the part of an hour before. Never null.';
COMMENT ON COLUMN upcall.hook_status.failed_24h    IS 'Attempts that failed in the same time. Never null.';
COMMENT ON COLUMN upcall.hook_status.read_until    IS 'When its place in the log was last moved, by PostgreSQL''s clock. Null while it is being added.';
COMMENT ON COLUMN upcall.hook_status.created_at    IS 'When it was made. Never null.';
COMMENT ON COLUMN upcall.hook_status.changed_at    IS 'When an operator changed it, or it was disabled. Never null.';
