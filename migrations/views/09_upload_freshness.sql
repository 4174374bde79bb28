-- Each subquery looks at one row of an index of each month. What comes before migration 8 has no
-- recorded_xid, and comes first in the log. The planner expects much more, so they are in a function:
-- JIT would take a hundred times as long as they do.
CREATE OR REPLACE FUNCTION upcall.freshness()
RETURNS TABLE (consumer text, read_until timestamptz, lag_seconds double precision)
LANGUAGE sql STABLE SECURITY DEFINER ROWS 10 SET search_path = '' SET jit = off
AS $$
SELECT c.name AS consumer,
    CASE WHEN c.recorded_xid IS NOT NULL THEN coalesce((
        SELECT e.received_at FROM upcall.upload_events e
        WHERE e.recorded_xid IS NOT NULL AND (e.recorded_xid, e.id) <= (c.recorded_xid, c.id)
        ORDER BY e.recorded_xid DESC, e.id DESC LIMIT 1
    ), (SELECT l.null_until FROM upcall.feed_log l)) ELSE (
        SELECT e.received_at FROM upcall.upload_events e
        WHERE e.recorded_xid IS NULL AND (e.received_at, e.id) <= (c.received_at, c.id)
            AND e.received_at <= (SELECT l.null_until FROM upcall.feed_log l)
        ORDER BY e.received_at DESC, e.id DESC LIMIT 1
    ) END AS read_until,
    coalesce(greatest(extract(epoch FROM statement_timestamp() - least(coalesce(CASE WHEN c.recorded_xid IS NULL THEN (
        SELECT e.received_at FROM upcall.upload_events e
        WHERE e.recorded_xid IS NULL AND (e.received_at, e.id) > (coalesce(c.received_at, '-infinity'), c.id)
            AND e.received_at <= (SELECT l.null_until FROM upcall.feed_log l)
        ORDER BY e.received_at, e.id LIMIT 1
    ) END, (
        SELECT e.received_at FROM upcall.upload_events e
        WHERE e.recorded_xid IS NOT NULL AND (e.recorded_xid, e.id) > (coalesce(c.recorded_xid, '0'), c.id)
        ORDER BY e.recorded_xid, e.id LIMIT 1
    )), CASE WHEN c.name LIKE 'hook/%' THEN (
        SELECT f.found_at FROM upcall.findings f
        WHERE (f.recorded_xid, f.id) > (coalesce(c.recorded_xid, '0'), c.id)
        ORDER BY f.recorded_xid, f.id LIMIT 1
    ) END)), 0), 0)::double precision AS lag_seconds
FROM (
    SELECT name, recorded_xid, received_at, id FROM upcall.feed_consumers WHERE name <> 'rollup/next'
    UNION ALL
    SELECT 'rollup', NULL, NULL, '00000000-0000-0000-0000-000000000000'
    WHERE NOT EXISTS (SELECT FROM upcall.feed_consumers WHERE name = 'rollup')
) AS c
$$;
GRANT EXECUTE ON FUNCTION upcall.freshness() TO PUBLIC;

CREATE OR REPLACE VIEW upcall.upload_freshness AS
SELECT consumer, read_until, lag_seconds FROM upcall.freshness();

COMMENT ON VIEW upcall.upload_freshness IS 'How far each consumer has read the log of events. Numbers of the views uploads, upload_hourly, upload_daily, upload_loss and upload_funnel are those of rollup; upload_log and upload_status do not wait for it.';
COMMENT ON COLUMN upcall.upload_freshness.consumer    IS 'rollup; confirm; or hook/ and the id of an endpoint in hook_status. Never null.';
COMMENT ON COLUMN upcall.upload_freshness.read_until  IS 'received_at of the last event that it has read, or passed over. Null while that is none.';
COMMENT ON COLUMN upcall.upload_freshness.lag_seconds IS 'Age in seconds of the first event, or finding of an endpoint, that it has not read; 0 if it has read all. Never null.';
