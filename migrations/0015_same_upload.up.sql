-- By what an event is known to tell of the same upload as another: its issued upload and its ETag, beside
-- the request id. Of what was counted before, only the request id is known.

ALTER TABLE upcall.rollup_objects ADD COLUMN first_upload_id uuid, ADD COLUMN first_etag text;
ALTER TABLE upcall.rollup_versions ADD COLUMN upload_id uuid, ADD COLUMN etag text;
CREATE INDEX rollup_versions_upload_id ON upcall.rollup_versions (generation, number, upload_id) WHERE upload_id IS NOT NULL;

COMMENT ON COLUMN upcall.rollup_objects.first_upload_id IS 'The issued upload of its first upload. Null if it belongs to none, or uploads is 1: then it is upload_id.';
COMMENT ON COLUMN upcall.rollup_objects.first_etag      IS 'ETag of its first upload, in capitals without quotes. Null if it is not known, or uploads is 1.';
COMMENT ON COLUMN upcall.rollup_versions.upload_id      IS 'The issued upload. Null if it belongs to none.';
COMMENT ON COLUMN upcall.rollup_versions.etag           IS 'ETag, in capitals without quotes. Null if it is not known.';
