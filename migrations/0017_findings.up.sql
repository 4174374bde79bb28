-- What was found about uploads after they were recorded. Findings are part of the log, in one order with
-- events; a program that knows only the version before reads the log without them.

CREATE TABLE upcall.findings (
    id                uuid        PRIMARY KEY,
    event_received_at timestamptz NOT NULL,
    event_id          uuid        NOT NULL,
    kind              text        NOT NULL CHECK (kind IN ('disputed', 'gone')),
    found             jsonb       NOT NULL,
    found_at          timestamptz NOT NULL,
    recorded_xid      xid8        NOT NULL DEFAULT pg_current_xact_id()
);
CREATE INDEX findings_log ON upcall.findings (recorded_xid, id);
CREATE INDEX findings_event ON upcall.findings (event_received_at, event_id);

COMMENT ON TABLE upcall.findings IS 'What confirmation found about uploads that is not what their events say.';
COMMENT ON COLUMN upcall.findings.id                IS 'Digest of the event''s id and kind. Never null.';
COMMENT ON COLUMN upcall.findings.event_received_at IS 'upload_events.received_at. Never null.';
COMMENT ON COLUMN upcall.findings.event_id          IS 'upload_events.id. Never null.';
COMMENT ON COLUMN upcall.findings.kind              IS 'disputed: the object is not what the event says; gone: it is not there any more. Never null.';
COMMENT ON COLUMN upcall.findings.found             IS 'What was found, as in deliveries of hooks. Never null.';
COMMENT ON COLUMN upcall.findings.found_at          IS 'When, by the receiver''s clock. Never null.';
COMMENT ON COLUMN upcall.findings.recorded_xid      IS 'The transaction that wrote the row, which gives it its place in the log, as upload_events.recorded_xid does; after receiver feed repair, the one that put it at the end. Never null.';

CREATE TABLE upcall.confirmations (
    event_received_at timestamptz NOT NULL,
    event_id          uuid        NOT NULL,
    outcome           text        NOT NULL CHECK (outcome IN ('confirmed', 'disputed', 'gone', 'overwritten')),
    looked_at         text        NOT NULL CHECK (looked_at IN ('object', 'notification', 'listing')),
    at                timestamptz NOT NULL,
    PRIMARY KEY (event_received_at, event_id)
);

COMMENT ON TABLE upcall.confirmations IS 'Whether objects were what their events say, each event once.';
COMMENT ON COLUMN upcall.confirmations.event_received_at IS 'upload_events.received_at. Never null.';
COMMENT ON COLUMN upcall.confirmations.event_id          IS 'upload_events.id. Never null.';
COMMENT ON COLUMN upcall.confirmations.outcome           IS 'confirmed; disputed or gone, as findings has it; or overwritten, if the object is that of a later upload. Never null.';
COMMENT ON COLUMN upcall.confirmations.looked_at         IS 'What says so: the object in its bucket, a notification of OSS, or a listing that the event comes from. Never null.';
COMMENT ON COLUMN upcall.confirmations.at                IS 'When, by the receiver''s clock. Never null.';

CREATE TABLE upcall.confirm_retries (
    event_received_at timestamptz NOT NULL,
    event_id          uuid        NOT NULL,
    due_at            timestamptz,
    attempts          integer     NOT NULL,
    differs           boolean     NOT NULL,
    problem           text        NOT NULL,
    failed_at         timestamptz NOT NULL,
    PRIMARY KEY (event_received_at, event_id)
) WITH (fillfactor = 70);
CREATE INDEX confirm_retries_due ON upcall.confirm_retries (due_at) WHERE due_at IS NOT NULL;

COMMENT ON TABLE upcall.confirm_retries IS 'Events whose objects are looked at again, and dead letters of the consumer confirm.';
COMMENT ON COLUMN upcall.confirm_retries.event_received_at IS 'upload_events.received_at. Never null.';
COMMENT ON COLUMN upcall.confirm_retries.event_id          IS 'upload_events.id. Never null.';
COMMENT ON COLUMN upcall.confirm_retries.due_at            IS 'When the object is looked at again. Null for a dead letter.';
COMMENT ON COLUMN upcall.confirm_retries.attempts          IS 'How often that has failed. Never null.';
COMMENT ON COLUMN upcall.confirm_retries.differs           IS 'Whether the object was another one when it was last seen, which a later upload may explain. Never null.';
COMMENT ON COLUMN upcall.confirm_retries.problem           IS 'Why. Never null.';
COMMENT ON COLUMN upcall.confirm_retries.failed_at         IS 'When it was looked at last, by the receiver''s clock. Never null.';

CREATE TABLE upcall.removals (
    bucket     text        COLLATE "C" NOT NULL,
    object_key text        COLLATE "C" NOT NULL,
    removed_at timestamptz NOT NULL,
    source     text        NOT NULL,
    PRIMARY KEY (bucket, object_key)
) WITH (fillfactor = 90);

COMMENT ON TABLE upcall.removals IS 'When objects were last found to be gone from their buckets.';
COMMENT ON COLUMN upcall.removals.bucket     IS 'Bucket. Never null.';
COMMENT ON COLUMN upcall.removals.object_key IS 'Full object key. Never null.';
COMMENT ON COLUMN upcall.removals.removed_at IS 'The latest time at which the object was removed, or found to be gone. Uploads that were stored later are not concerned. Never null.';
COMMENT ON COLUMN upcall.removals.source     IS 'notification, reconcile or confirm. Never null.';

COMMENT ON COLUMN upcall.rollup_objects.removed_at IS 'Null; removals has it since migration 17.';

-- Deliveries of findings.
ALTER TABLE upcall.hook_attempts ADD COLUMN kind text NOT NULL DEFAULT 'recorded';
COMMENT ON COLUMN upcall.hook_attempts.kind         IS 'What was told, as recorded; test for a test. Never null.';
COMMENT ON COLUMN upcall.hook_attempts.event_id     IS 'Id of the message: upload_events.id, or findings.id; of a test, none of them. Never null.';
COMMENT ON COLUMN upcall.hook_attempts.received_at  IS 'upload_events.received_at, of a finding''s event, too. Null for a test.';
COMMENT ON COLUMN upcall.hook_retries.event_id      IS 'Id of the message: upload_events.id, or findings.id. Never null.';
COMMENT ON COLUMN upcall.hook_retries.received_at   IS 'upload_events.received_at, of a finding''s event, too. Never null.';
COMMENT ON COLUMN upcall.hook_retries.kind          IS 'What is told: recorded, or findings.kind. Never null.';
