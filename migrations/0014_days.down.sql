DROP FUNCTION IF EXISTS upcall.uses_of(uuid), upcall.funnel_of(date), upcall.freshness();
DROP INDEX upcall.revoked_uploads_revoked_at;
ALTER TABLE upcall.rollup_superseded DROP COLUMN upload_id;
DROP TABLE upcall.rollup_overwritten, upcall.rollup_funnel, upcall.rollup_days;
COMMENT ON COLUMN upcall.callback_ids.upload_id IS 'upload_events.upload_id; zeros where that is null, and in rows from before migration 4. Never null.';
