-- The statements about the columns, in plainer words, and up to date.

COMMENT ON TABLE upcall.upload_events IS 'One row for each upload that OSS called back for. With an upload_id, what the token covers is what was issued: bucket, object_key, vars, and size and mime_type where the ledger has them. All else is the word of OSS or, if the uploader had OSS sign a callback of their own, of the uploader.';
COMMENT ON COLUMN upcall.upload_events.etag         IS 'ETag of the object, without quotes. The uploader''s word: no token covers it. Null when the body did not have it.';
COMMENT ON COLUMN upcall.upload_events.size         IS 'Size of the whole object in bytes. The uploader''s word, unless the upload was issued with a size (issued_uploads.size). Null when the body did not have it.';
COMMENT ON COLUMN upcall.upload_events.mime_type    IS 'Content type of the object. The uploader''s word, unless the upload was issued with one (issued_uploads.content_type), apart from case and parameters. Null when the body did not have it.';
COMMENT ON COLUMN upcall.upload_events.crc64        IS 'CRC-64/XZ of the content as an unsigned 64-bit number, as in the header x-oss-hash-crc64ecma. The uploader''s word. Null when the body did not have it.';
COMMENT ON COLUMN upcall.upload_events.content_md5  IS 'MD5 of the content in Base64. The uploader''s word. Null after CompleteMultipartUpload, or when the body did not have it.';
COMMENT ON COLUMN upcall.upload_events.client_ip    IS 'Address of the uploader as OSS saw it. The uploader''s word: no token covers it. Null when the body did not have it.';
COMMENT ON COLUMN upcall.upload_events.operation    IS 'PutObject, PostObject or CompleteMultipartUpload. The uploader''s word. Null when the body did not have it.';
COMMENT ON COLUMN upcall.upload_events.vpc_id       IS 'VPC that the upload came through. Null when it came over the internet, or the body did not have it.';
COMMENT ON COLUMN upcall.upload_events.request_id   IS 'Request id of the upload in OSS. Where the body did not have it, the one of the x-oss-request-id header, which nobody signs. Null when neither had it.';
COMMENT ON COLUMN upcall.upload_events.upload_id    IS 'The issued upload, from the token. Null when the callback had no valid token and none was required.';
COMMENT ON COLUMN upcall.upload_events.vars         IS 'All other fields of the body, by their names there; custom variables of the default template have no "x:". The values in the query of the callback URL, too, unless the body has a field of that name, or an upload token of before version 2, which does not cover them. Fields that OSS fills in under names of the template''s own are the uploader''s word. The upload token is left out: upload_id stands for it. Empty object when there are none; never null.';
COMMENT ON COLUMN upcall.upload_events.source       IS 'What told of the upload, such as "callback". Never null.';
COMMENT ON COLUMN upcall.api_keys.hash              IS 'Digest of the secret part, which is not stored. Never null.';
COMMENT ON COLUMN upcall.issued_uploads.content_type IS 'The only content type that OSS accepts. Null when any is accepted.';
COMMENT ON COLUMN upcall.issued_uploads.size        IS 'Size of the whole object in bytes. Null when it was not known at issue.';
COMMENT ON COLUMN upcall.issued_uploads.vars        IS 'Custom variables of the callback, as text by name without "x:". Empty object when there are none; never null.';
COMMENT ON COLUMN upcall.issued_uploads.api_key_id  IS 'api_keys.id of the key that asked for the upload. Null when it was issued on the command line.';
COMMENT ON TABLE  upcall.revoked_uploads            IS 'Uploads whose callbacks are refused. OSS itself accepts them until they expire.';
COMMENT ON COLUMN upcall.refused_callbacks.reason   IS 'Why, such as "token_revoked" or "digest_mismatch": the label in log and metrics. Never null.';
COMMENT ON COLUMN upcall.refused_callbacks.source_addr IS 'Address that the callback came from, as the receiver saw it: that of OSS, or of a proxy in between. Null when it is not known.';
