COMMENT ON COLUMN upcall.hook_retries.kind        IS 'What is told of it, as recorded. Never null.';
COMMENT ON COLUMN upcall.hook_retries.received_at IS 'upload_events.received_at. Never null.';
COMMENT ON COLUMN upcall.hook_retries.event_id    IS 'upload_events.id. Never null.';
COMMENT ON COLUMN upcall.hook_attempts.received_at IS 'upload_events.received_at. Null for a test.';
COMMENT ON COLUMN upcall.hook_attempts.event_id   IS 'upload_events.id; of a test, no event has it. Never null.';
DELETE FROM upcall.hook_retries WHERE kind <> 'recorded';
ALTER TABLE upcall.hook_attempts DROP COLUMN kind;
COMMENT ON COLUMN upcall.rollup_objects.removed_at IS 'When the object was found to be gone. Null if it was not.';
DROP TABLE upcall.removals, upcall.confirm_retries, upcall.confirmations, upcall.findings;
