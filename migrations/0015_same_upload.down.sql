ALTER TABLE upcall.rollup_versions DROP COLUMN upload_id, DROP COLUMN etag;
ALTER TABLE upcall.rollup_objects DROP COLUMN first_upload_id, DROP COLUMN first_etag;
