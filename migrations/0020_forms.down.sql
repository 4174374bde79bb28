DROP TABLE upcall.repeatable_requests;
ALTER TABLE upcall.issued_uploads DROP COLUMN by_prefix;
COMMENT ON COLUMN upcall.issued_uploads.object_key IS 'Full object key. Never null.';
