DROP INDEX upcall.refused_callbacks_reason;
ALTER TABLE upcall.refused_callbacks DROP COLUMN request_id;
