-- The log: events in the order of their commits, and its consumers. Rows that are there
-- already have no recorded_xid and come first. A program that knows only 0007 fills the column,
-- too, because its default does.
--
-- The index is made on the table alone, which is quick. `migrate up` then makes it on each
-- partition, CONCURRENTLY, which no numbered file can; new partitions get it with the rest.

-- Before the first snapshot, so that what follows sees every row that the column's default
-- came too late for.
LOCK TABLE upcall.upload_events IN ACCESS EXCLUSIVE MODE;

-- In two steps: a column that is added with this default would have the table rewritten.
ALTER TABLE upcall.upload_events ADD COLUMN recorded_xid xid8;
ALTER TABLE upcall.upload_events ALTER COLUMN recorded_xid SET DEFAULT pg_current_xact_id();
COMMENT ON COLUMN upcall.upload_events.recorded_xid IS 'The transaction that wrote the row, which gives the log its order: (recorded_xid, id). Only what is below pg_snapshot_xmin(pg_current_snapshot()) is complete. Null in rows from before migration 8, and after receiver feed repair; they come first, by (received_at, id).';

-- No deduplication: no two entries are equal, and looking for such costs CPU time.
CREATE INDEX upload_events_log ON ONLY upcall.upload_events (recorded_xid, id) WITH (deduplicate_items = off)
    WHERE recorded_xid IS NOT NULL;

CREATE TABLE upcall.feed_log (
    the_only      boolean     PRIMARY KEY DEFAULT true CHECK (the_only),
    null_until    timestamptz,
    gone_xid      xid8,
    gone_id       uuid,
    gone_null_at  timestamptz,
    gone_null_id  uuid,
    repairing     timestamptz
);

COMMENT ON TABLE upcall.feed_log IS 'One row about the log as a whole.';
COMMENT ON COLUMN upcall.feed_log.the_only     IS 'True. Never null.';
COMMENT ON COLUMN upcall.feed_log.null_until   IS 'The latest received_at of a row whose recorded_xid is null. Null if there is none.';
COMMENT ON COLUMN upcall.feed_log.gone_xid     IS 'recorded_xid of the last entry that was dropped. Null if none was.';
COMMENT ON COLUMN upcall.feed_log.gone_id      IS 'Its id. Null if none was.';
COMMENT ON COLUMN upcall.feed_log.gone_null_at IS 'received_at of the last entry without a recorded_xid that was dropped. Null if none was.';
COMMENT ON COLUMN upcall.feed_log.gone_null_id IS 'Its id. Null if none was.';
COMMENT ON COLUMN upcall.feed_log.repairing    IS 'When receiver feed repair began. No one may read the log until it has ended. Null if it has.';

INSERT INTO upcall.feed_log (null_until) SELECT max(received_at) FROM upcall.upload_events;

CREATE TABLE upcall.feed_timelines (
    system_identifier bigint      NOT NULL,
    timeline          integer     NOT NULL,
    noticed_at        timestamptz NOT NULL DEFAULT now(),
    since_xid         xid8        NOT NULL,
    read_until        xid8        NOT NULL,
    PRIMARY KEY (system_identifier, timeline)
);

COMMENT ON TABLE upcall.feed_timelines IS 'The clusters and timelines that the log was read on. After a failover or a restore, a cursor of an older one is set back to where the next began.';
COMMENT ON COLUMN upcall.feed_timelines.system_identifier IS 'system_identifier of pg_control_system(). Never null.';
COMMENT ON COLUMN upcall.feed_timelines.timeline          IS 'Timeline of the WAL. Never null.';
COMMENT ON COLUMN upcall.feed_timelines.noticed_at        IS 'When a receiver first saw it, by PostgreSQL''s clock. Never null.';
COMMENT ON COLUMN upcall.feed_timelines.since_xid         IS 'The log below this is the same as on the timeline before. Never null.';
COMMENT ON COLUMN upcall.feed_timelines.read_until        IS 'The watermark at some moment on this timeline: where the next one begins. Never null.';

CREATE TABLE upcall.feed_moved (
    system_identifier bigint      NOT NULL,
    recorded_xid      xid8        NOT NULL,
    received_at       timestamptz NOT NULL,
    id                uuid        NOT NULL,
    PRIMARY KEY (system_identifier, recorded_xid)
);

COMMENT ON TABLE upcall.feed_moved IS 'Where a cursor of another cluster continues, after receiver feed repair has cleared the recorded_xid of the rows that were restored from it: at the row with the highest recorded_xid that is not above the cursor''s.';
COMMENT ON COLUMN upcall.feed_moved.system_identifier IS 'The cluster that the rows come from, and cursors name. Never null.';
COMMENT ON COLUMN upcall.feed_moved.recorded_xid      IS 'Of restored rows, as it was. Never null.';
COMMENT ON COLUMN upcall.feed_moved.received_at       IS 'With id, the first of the restored rows that had this recorded_xid or a higher one. Never null.';
COMMENT ON COLUMN upcall.feed_moved.id                IS 'See received_at. Never null.';

CREATE TABLE upcall.feed_consumers (
    name              text        PRIMARY KEY,
    system_identifier bigint      NOT NULL,
    timeline          integer     NOT NULL,
    recorded_xid      xid8,
    received_at       timestamptz,
    id                uuid        NOT NULL,
    lease_holder      text,
    lease_until       timestamptz,
    updated_at        timestamptz NOT NULL DEFAULT now(),
    CHECK ((recorded_xid IS NULL) = (received_at IS NOT NULL))
) WITH (fillfactor = 50); -- so that an update stays on its page

COMMENT ON TABLE upcall.feed_consumers IS 'What reads the log: each with its place in it, and the receiver that works for it.';
COMMENT ON COLUMN upcall.feed_consumers.name              IS 'Name of the consumer. Never null.';
COMMENT ON COLUMN upcall.feed_consumers.system_identifier IS 'The cluster that the cursor is of. Never null.';
COMMENT ON COLUMN upcall.feed_consumers.timeline          IS 'The timeline that the cursor is of. Never null.';
COMMENT ON COLUMN upcall.feed_consumers.recorded_xid      IS 'Of the last entry that was read. Null among the rows whose recorded_xid is null.';
COMMENT ON COLUMN upcall.feed_consumers.received_at       IS 'Of the last entry that was read. Null where recorded_xid is not.';
COMMENT ON COLUMN upcall.feed_consumers.id                IS 'Of the last entry that was read; zeros before the first. Never null.';
COMMENT ON COLUMN upcall.feed_consumers.lease_holder      IS 'The process that works for it. Null if none does.';
COMMENT ON COLUMN upcall.feed_consumers.lease_until       IS 'Until when no other process may, by PostgreSQL''s clock. Null if none does.';
COMMENT ON COLUMN upcall.feed_consumers.updated_at        IS 'When the cursor was moved, by PostgreSQL''s clock. Never null.';
