DROP VIEW upcall.upload_funnel;
DROP VIEW upcall.upload_status;
DROP TABLE upcall.refused_callbacks;
DROP TABLE upcall.revoked_uploads;
DROP TABLE upcall.issued_uploads;
DROP TABLE upcall.api_keys;
