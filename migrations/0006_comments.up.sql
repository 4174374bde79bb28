-- The same statements about the columns, in plainer words.

COMMENT ON COLUMN upcall.upload_events.vpc_id       IS 'VPC that the upload came through. Null when it came over the internet, or the body did not have it.';
COMMENT ON COLUMN upcall.upload_events.upload_id    IS 'The issued upload, from the token. Null when the callback had no valid token and none was required.';
COMMENT ON COLUMN upcall.upload_events.vars         IS 'All other fields of the body, by their names there; custom variables of the default template have no "x:". The upload token is left out: upload_id stands for it. Empty object when there are none; never null.';
COMMENT ON COLUMN upcall.upload_events.source       IS 'What told of the upload, such as "callback". Never null.';
COMMENT ON COLUMN upcall.api_keys.hash              IS 'Digest of the secret part, which is not stored. Never null.';
COMMENT ON COLUMN upcall.issued_uploads.content_type IS 'The only content type that OSS accepts. Null when any is accepted.';
COMMENT ON COLUMN upcall.issued_uploads.size        IS 'Size of the whole object in bytes. Null when it was not known at issue.';
COMMENT ON COLUMN upcall.issued_uploads.vars        IS 'Custom variables of the callback, as text by name without "x:". Empty object when there are none; never null.';
COMMENT ON COLUMN upcall.issued_uploads.api_key_id  IS 'api_keys.id of the key that asked for the upload. Null when it was issued on the command line.';
COMMENT ON TABLE  upcall.revoked_uploads            IS 'Uploads whose callbacks are refused. OSS itself accepts them until they expire.';
COMMENT ON COLUMN upcall.refused_callbacks.reason   IS 'Why, such as "token_revoked" or "digest_mismatch": the label in log and metrics. Never null.';
COMMENT ON COLUMN upcall.refused_callbacks.source_addr IS 'Address that the callback came from, as the receiver saw it: that of OSS, or of a proxy in between. Null when it is not known.';
