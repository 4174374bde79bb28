-- What OSS's event notifications tell, until it is settled, and the events that no callback told of.
-- A program that knows only the version before does not look at either.

CREATE TABLE upcall.notifications (LIKE upcall.upload_events INCLUDING COMMENTS);
ALTER TABLE upcall.notifications
    DROP COLUMN recorded_xid,
    ADD COLUMN noticed_at timestamptz NOT NULL,
    ADD COLUMN settled_at timestamptz,
    ADD COLUMN outcome text,
    ADD PRIMARY KEY (id),
    ADD CHECK ((settled_at IS NULL) = (outcome IS NULL));
CREATE INDEX notifications_waiting ON upcall.notifications (noticed_at) WHERE settled_at IS NULL;
CREATE INDEX notifications_settled ON upcall.notifications (settled_at) WHERE settled_at IS NOT NULL;

COMMENT ON TABLE upcall.notifications IS 'OSS''s event notifications, each once. They wait for the callback of their upload; what no callback tells of becomes an event. Settled ones are kept for 35 days. A new column of upload_events is one of this table, too.';
COMMENT ON COLUMN upcall.notifications.id          IS 'upload_events.id of what it becomes: a digest of source, bucket, key, and request id or ETag and time. Never null.';
COMMENT ON COLUMN upcall.notifications.received_at IS 'When the object was stored or removed, by OSS''s clock. Never null.';
COMMENT ON COLUMN upcall.notifications.bucket      IS 'Bucket of the object. Null if the notification did not hold it.';
COMMENT ON COLUMN upcall.notifications.object_key  IS 'Full object key. Null if the notification did not hold it.';
COMMENT ON COLUMN upcall.notifications.etag        IS 'ETag of the object. Null if the notification did not hold it.';
COMMENT ON COLUMN upcall.notifications.client_ip   IS 'Address of the uploader as OSS saw it. Null if the notification did not hold it, or it is settled, or it was erased.';
COMMENT ON COLUMN upcall.notifications.request_id  IS 'Request id of the upload in OSS. Null if the notification did not hold it.';
COMMENT ON COLUMN upcall.notifications.operation   IS 'PutObject, PostObject or CompleteMultipartUpload; of removals DeleteObject or DeleteObjects. Null if the notification did not hold it.';
COMMENT ON COLUMN upcall.notifications.upload_id   IS 'The issued upload, from its token. Null if the notification did not hold that.';
COMMENT ON COLUMN upcall.notifications.vars        IS 'Custom variables by name without "x:". Empty object if the notification did not hold them, or it is settled, or they were erased; never null.';
COMMENT ON COLUMN upcall.notifications.source      IS 'Always notification. Never null.';
COMMENT ON COLUMN upcall.notifications.noticed_at  IS 'When a receiver wrote it, by its clock. Never null.';
COMMENT ON COLUMN upcall.notifications.settled_at  IS 'When it was settled, by the receiver''s clock. Null while it waits.';
COMMENT ON COLUMN upcall.notifications.outcome     IS 'What became of it: known, because another event tells of the upload; recorded; foreign, because nothing says that the upload was issued; revoked; too_old; removal; or refused by the database. Null while it waits.';

COMMENT ON TABLE upcall.upload_events IS 'One row for each signed upload callback of OSS, and for each upload that only a notification or a listing told of when it was recorded. Partitioned by month of received_at (UTC); upload_events_2026_11 holds November 2026.';
COMMENT ON COLUMN upcall.upload_events.id          IS 'Identity of the event: a digest of the callback''s signed content; of other sources, of source, bucket, key, and request id or ETag and time. Never null. Unique through callback_ids.';
COMMENT ON COLUMN upcall.upload_events.received_at IS 'When the receiver had read the callback, by its own clock. Of other sources, when the object was stored, by OSS''s clock. Never null.';
COMMENT ON COLUMN upcall.upload_events.upload_id   IS 'The issued upload that this is, from its token; of other sources also from the ledger, by bucket and key. Null when the callback had no valid token and none was required.';
COMMENT ON COLUMN upcall.upload_events.source      IS 'What told of the upload: callback, notification or reconcile. Never null.';

CREATE TABLE upcall.recovered_uploads (
    event_id     uuid        PRIMARY KEY,
    received_at  timestamptz NOT NULL,
    source       text        NOT NULL,
    bucket       text,
    object_key   text,
    etag         text,
    request_id   text,
    upload_id    uuid,
    recovered_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX recovered_uploads_upload_id ON upcall.recovered_uploads (upload_id) WHERE upload_id IS NOT NULL;
CREATE INDEX recovered_uploads_request_id ON upcall.recovered_uploads (request_id) WHERE request_id IS NOT NULL;
-- Only hash indexes have no limit on the length of a key.
CREATE INDEX recovered_uploads_object_key ON upcall.recovered_uploads USING hash (object_key);

COMMENT ON TABLE upcall.recovered_uploads IS 'Events that no callback told of when they were recorded, as long as they are kept: what a callback supersedes that comes later after all.';
COMMENT ON COLUMN upcall.recovered_uploads.event_id     IS 'upload_events.id. Never null.';
COMMENT ON COLUMN upcall.recovered_uploads.received_at  IS 'upload_events.received_at. Never null.';
COMMENT ON COLUMN upcall.recovered_uploads.source       IS 'notification or reconcile. Never null.';
COMMENT ON COLUMN upcall.recovered_uploads.bucket       IS 'Bucket of the object. Null if it is not known.';
COMMENT ON COLUMN upcall.recovered_uploads.object_key   IS 'Full object key. Null if it is not known.';
COMMENT ON COLUMN upcall.recovered_uploads.etag         IS 'ETag of the object, in capitals without quotes. Null if it is not known.';
COMMENT ON COLUMN upcall.recovered_uploads.request_id   IS 'Request id of the upload in OSS. Null if it is not known, or longer than 128 bytes.';
COMMENT ON COLUMN upcall.recovered_uploads.upload_id    IS 'The issued upload. Null if it belongs to none.';
COMMENT ON COLUMN upcall.recovered_uploads.recovered_at IS 'When it was recorded, by PostgreSQL''s clock. Never null.';
