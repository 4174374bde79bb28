-- Keeps callbacks that are refused for any reason, not only for a revoked upload. A program
-- that knows only 0002 writes the same rows as before.

ALTER TABLE upcall.refused_callbacks ADD COLUMN request_id text;

-- To delete the oldest rows of a reason when there are too many.
CREATE INDEX refused_callbacks_reason ON upcall.refused_callbacks (reason, refused_at);

COMMENT ON TABLE upcall.refused_callbacks IS 'Callbacks that made no row in upload_events, each once for each reason. A sample, not an account: receivers keep a few each second, drop the oldest when there are too many, and count all in /metrics. What a row says is what the sender claimed; a reason about signature or key means that it can be anybody.';
COMMENT ON COLUMN upcall.refused_callbacks.digest      IS 'Identity of the callback: a digest of its signed content, as in upload_events.id; where the body was not read, of its target and signature. Never null.';
COMMENT ON COLUMN upcall.refused_callbacks.reason      IS 'Why, as "token_revoked" or "digest_mismatch": the label that log and metrics have. Never null.';
COMMENT ON COLUMN upcall.refused_callbacks.bucket      IS 'Bucket that the callback claims, cut after 1024 bytes or characters. Null when it named none, or its body could not be read.';
COMMENT ON COLUMN upcall.refused_callbacks.object_key  IS 'Object key that the callback claims, cut after 1024 bytes or characters. Null when it named none, or its body could not be read.';
COMMENT ON COLUMN upcall.refused_callbacks.request_id  IS 'Request id that the callback claims, its first 128 bytes. Null when it named none, and for uploads that were revoked: see the log.';
