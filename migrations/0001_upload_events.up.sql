-- One row for each upload that OSS reports. The program that applies these files makes the
-- schema itself, because its table of versions is in it.

CREATE TABLE upcall.upload_events (
    id           uuid        NOT NULL,
    received_at  timestamptz NOT NULL,
    bucket       text,
    object_key   text,
    etag         text,
    size         bigint,
    mime_type    text,
    image_width  integer,
    image_height integer,
    image_format text,
    crc64        numeric(20),
    content_md5  text,
    vpc_id       text,
    client_ip    inet,
    request_id   text,
    operation    text,
    upload_id    uuid,
    vars         jsonb       NOT NULL DEFAULT '{}',
    source       text        NOT NULL,
    -- Time first, so that new rows go to the right edge of the index. callback_ids makes ids
    -- unique, because a unique key here must include the time.
    PRIMARY KEY (received_at, id)
) PARTITION BY RANGE (received_at);

-- "What became of the upload that I issued?" Only issued uploads are in it.
CREATE INDEX upload_events_upload_id ON upcall.upload_events (upload_id) WHERE upload_id IS NOT NULL;

-- There is no index on (bucket, object_key): it slowed the recorder by 10 to 20 %, and
-- would reject keys longer than a third of a page, which other issuers' templates may send.
-- To find an object, use its upload_id or its day.

COMMENT ON TABLE upcall.upload_events IS 'One row for each signed upload callback of OSS. Partitioned by month of received_at (UTC); upload_events_2026_11 holds November 2026.';
COMMENT ON COLUMN upcall.upload_events.id           IS 'Identity of the callback: a digest of its signed content. Never null. Unique through callback_ids.';
COMMENT ON COLUMN upcall.upload_events.received_at  IS 'When the receiver had read the callback, by its own clock. Never null.';
COMMENT ON COLUMN upcall.upload_events.bucket       IS 'Bucket of the object. Null when neither the body nor the x-oss-bucket header named it.';
COMMENT ON COLUMN upcall.upload_events.object_key   IS 'Full object key. Null when the body did not hold it.';
COMMENT ON COLUMN upcall.upload_events.etag         IS 'ETag of the object, without quotes. Null when the body did not hold it.';
COMMENT ON COLUMN upcall.upload_events.size         IS 'Size of the whole object in bytes. Null when the body did not hold it.';
COMMENT ON COLUMN upcall.upload_events.mime_type    IS 'Content type of the object, as the uploader gave it. Null when the body did not hold it.';
COMMENT ON COLUMN upcall.upload_events.image_width  IS 'Width in pixels. Null when the object is no image that OSS knows, or the body did not hold it.';
COMMENT ON COLUMN upcall.upload_events.image_height IS 'Height in pixels. Null when the object is no image that OSS knows, or the body did not hold it.';
COMMENT ON COLUMN upcall.upload_events.image_format IS 'Format of the image, as jpg or png. Null when the object is no image that OSS knows, or the body did not hold it.';
COMMENT ON COLUMN upcall.upload_events.crc64        IS 'CRC-64/XZ of the content as an unsigned 64-bit number, like the header x-oss-hash-crc64ecma. Null when the body did not hold it.';
COMMENT ON COLUMN upcall.upload_events.content_md5  IS 'MD5 of the content in Base64. Null after CompleteMultipartUpload, or when the body did not hold it.';
COMMENT ON COLUMN upcall.upload_events.vpc_id       IS 'VPC that the uploader came through. Null when he came over the internet, or the body did not hold it.';
COMMENT ON COLUMN upcall.upload_events.client_ip    IS 'Address of the uploader as OSS saw it. Null when the body did not hold it.';
COMMENT ON COLUMN upcall.upload_events.request_id   IS 'Request id of the upload in OSS. Null when the body did not hold it.';
COMMENT ON COLUMN upcall.upload_events.operation    IS 'PutObject, PostObject or CompleteMultipartUpload. Null when the body did not hold it.';
COMMENT ON COLUMN upcall.upload_events.upload_id    IS 'The issued upload that this is, from its token. Null when the callback had no valid token and none was required.';
COMMENT ON COLUMN upcall.upload_events.vars         IS 'Whatever else the body held, by its name there, which for a custom variable in the default template is its name without "x:". The upload token is left out: upload_id stands for it. Empty object when there was nothing else; never null.';
COMMENT ON COLUMN upcall.upload_events.source       IS 'How the row came to be, as "callback". Never null.';

-- This table makes each callback count once, whatever its receiver, month or batch. It is
-- narrow, so that its index stays in memory.
CREATE TABLE upcall.callback_ids (
    id          uuid        PRIMARY KEY,
    received_at timestamptz NOT NULL
);

COMMENT ON TABLE upcall.callback_ids IS 'Every callback seen, once. Rows are kept for at least 30 days, which is longer than any upload token lives.';
COMMENT ON COLUMN upcall.callback_ids.id          IS 'upload_events.id. Never null.';
COMMENT ON COLUMN upcall.callback_ids.received_at IS 'upload_events.received_at of the same row, which with id is its primary key. Never null.';
