ALTER TABLE upcall.hook_endpoints DROP COLUMN begins;
DROP INDEX upcall.refused_callbacks_object_key;
DROP INDEX upcall.refused_callbacks_request_id;
DROP INDEX upcall.rollup_versions_request;
DROP INDEX upcall.rollup_objects_first_request_id;
