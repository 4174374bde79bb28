-- Uploads by HTML forms, which may leave the end of the object key to the uploader, and requests that are repeated. A
-- program that knows only earlier versions issues neither.

ALTER TABLE upcall.issued_uploads ADD COLUMN by_prefix boolean NOT NULL DEFAULT false;

COMMENT ON COLUMN upcall.issued_uploads.by_prefix  IS 'Whether object_key is only the beginning of the key; the uploader chooses the rest, for each file that they upload. Never null.';
COMMENT ON COLUMN upcall.issued_uploads.object_key IS 'Full object key, or its beginning, see by_prefix. Never null.';

CREATE TABLE upcall.repeatable_requests (
    api_key_id text        NOT NULL,
    key_digest bytea       NOT NULL,
    request    bytea       NOT NULL,
    claim      uuid        NOT NULL,
    claimed_at timestamptz NOT NULL,
    answer     bytea,
    PRIMARY KEY (api_key_id, key_digest)
);

CREATE INDEX repeatable_requests_claimed_at ON upcall.repeatable_requests (claimed_at);

COMMENT ON TABLE upcall.repeatable_requests IS 'Requests to the issuer that came with an Idempotency-Key, and their answers, for a day.';
COMMENT ON COLUMN upcall.repeatable_requests.api_key_id IS 'api_keys.id of the application. Never null.';
COMMENT ON COLUMN upcall.repeatable_requests.key_digest IS 'Digest of the Idempotency-Key. Never null.';
COMMENT ON COLUMN upcall.repeatable_requests.request    IS 'Digest of path and body. Never null.';
COMMENT ON COLUMN upcall.repeatable_requests.claim      IS 'Which attempt answers the request. Never null.';
COMMENT ON COLUMN upcall.repeatable_requests.claimed_at IS 'Since when, by PostgreSQL''s clock. Never null.';
COMMENT ON COLUMN upcall.repeatable_requests.answer     IS 'The answer, encrypted with a key that only the application has. Null while the request is answered.';
