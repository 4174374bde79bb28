-- Days of the funnel that are over, computed once. The view upload_funnel computes the others when
-- it is read.

CREATE TABLE upcall.rollup_days (
    day         date        PRIMARY KEY,
    version     bigint      NOT NULL DEFAULT 0,
    stored      boolean     NOT NULL DEFAULT false,
    recheck     boolean     NOT NULL DEFAULT false,
    computed_at timestamptz
) WITH (fillfactor = 50);

COMMENT ON TABLE upcall.rollup_days IS 'Days in UTC that are over, and whether rollup_funnel has them.';
COMMENT ON COLUMN upcall.rollup_days.day         IS 'The day. Never null.';
COMMENT ON COLUMN upcall.rollup_days.version     IS 'Raised whenever an event is read that changes what is stored of the day, and when that is stored. Never null.';
COMMENT ON COLUMN upcall.rollup_days.stored      IS 'Whether rollup_funnel is right. If not, the day is computed when the view is read, until it is stored again. Never null.';
COMMENT ON COLUMN upcall.rollup_days.recheck     IS 'Whether the day is to be stored again, though it is stored, because receiver rebuild wants it. Never null.';
COMMENT ON COLUMN upcall.rollup_days.computed_at IS 'When it was stored last, by PostgreSQL''s clock. Null if it was not yet.';

CREATE TABLE upcall.rollup_funnel (
    day           date          NOT NULL,
    bucket        text          COLLATE "C" NOT NULL,
    issued        bigint        NOT NULL,
    uploaded      bigint        NOT NULL,
    unused        bigint        NOT NULL,
    revoked       bigint        NOT NULL,
    overwritten   bigint        NOT NULL,
    unissued      bigint        NOT NULL,
    median        interval,
    p95           interval,
    unused_until  timestamptz[] NOT NULL
);
CREATE INDEX rollup_funnel_day ON upcall.rollup_funnel (day);

COMMENT ON TABLE upcall.rollup_funnel IS 'What became of the uploads issued on each day, by bucket.';
COMMENT ON COLUMN upcall.rollup_funnel.day          IS 'rollup_days.day. Never null.';
COMMENT ON COLUMN upcall.rollup_funnel.bucket       IS 'Bucket. Empty if events named none. Never null.';
COMMENT ON COLUMN upcall.rollup_funnel.issued       IS 'How many uploads were issued. Never null.';
COMMENT ON COLUMN upcall.rollup_funnel.uploaded     IS 'How many of them were uploaded. Never null.';
COMMENT ON COLUMN upcall.rollup_funnel.unused       IS 'How many of them were neither uploaded nor revoked. Never null.';
COMMENT ON COLUMN upcall.rollup_funnel.revoked      IS 'How many of them were revoked. Never null.';
COMMENT ON COLUMN upcall.rollup_funnel.overwritten  IS 'How many of those uploaded were replaced, less what rollup_overwritten had counted then. Never null.';
COMMENT ON COLUMN upcall.rollup_funnel.unissued     IS 'How many events were received on the day that belong to no issued upload. Never null.';
COMMENT ON COLUMN upcall.rollup_funnel.median       IS 'Half of those uploaded took less time from being issued to their first event. Null if none was uploaded.';
COMMENT ON COLUMN upcall.rollup_funnel.p95          IS '95 % of those uploaded took less time from being issued to their first event. Null if none was uploaded.';
COMMENT ON COLUMN upcall.rollup_funnel.unused_until IS 'Until when those of unused may be used that had not expired when the day was stored. Never null.';

CREATE TABLE upcall.rollup_overwritten (
    day     date   NOT NULL,
    bucket  text   COLLATE "C" NOT NULL,
    uploads bigint NOT NULL,
    PRIMARY KEY (day, bucket)
) WITH (fillfactor = 50);

COMMENT ON TABLE upcall.rollup_overwritten IS 'How often the current upload of an object was replaced by another one, by the day on which it was issued. It changes days that are stored.';
COMMENT ON COLUMN upcall.rollup_overwritten.day     IS 'Day in UTC on which the upload that was replaced was issued. Never null.';
COMMENT ON COLUMN upcall.rollup_overwritten.bucket  IS 'Its bucket. Never null.';
COMMENT ON COLUMN upcall.rollup_overwritten.uploads IS 'How many, since migration 14. Never null.';

ALTER TABLE upcall.rollup_superseded ADD COLUMN upload_id uuid;
COMMENT ON COLUMN upcall.rollup_superseded.upload_id IS 'upload_events.upload_id. Null if the event belongs to no issued upload.';
UPDATE upcall.rollup_superseded s SET upload_id = e.upload_id FROM upcall.upload_events e
    WHERE e.received_at = s.received_at AND e.id = s.event_id AND e.upload_id IS NOT NULL;

-- Revocations are looked for by time.
CREATE INDEX revoked_uploads_revoked_at ON upcall.revoked_uploads (revoked_at);

-- upload_status finds the events of an upload in callback_ids, because that is one index whatever
-- the number of months. So rows from before migration 4 get their upload.
UPDATE upcall.callback_ids c SET upload_id = e.upload_id
    FROM upcall.upload_events e
    WHERE c.upload_id = '00000000-0000-0000-0000-000000000000' AND e.received_at = c.received_at AND e.id = c.id
        AND e.upload_id IS NOT NULL
        AND NOT EXISTS (SELECT FROM upcall.callback_ids there WHERE there.upload_id = e.upload_id AND there.id = c.id);
COMMENT ON COLUMN upcall.callback_ids.upload_id IS 'upload_events.upload_id; zeros where that is null. Never null.';
