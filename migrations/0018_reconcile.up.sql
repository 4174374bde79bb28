-- Runs that compare a bucket with the log, and the objects that the latest of them listed.

CREATE TABLE upcall.reconcile_runs (
    run_id      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    bucket      text        COLLATE "C" NOT NULL,
    prefix      text        COLLATE "C" NOT NULL DEFAULT '',
    since       timestamptz,
    inventory   text        NOT NULL DEFAULT '',
    dry_run     boolean     NOT NULL DEFAULT false,
    stage       text        NOT NULL CHECK (stage IN ('list', 'compare', 'recover', 'vanish', 'note', 'done', 'failed')),
    begun_at    timestamptz NOT NULL,
    listed_at   timestamptz NOT NULL,
    begun_xid   xid8        NOT NULL DEFAULT pg_snapshot_xmax(pg_current_snapshot()),
    ended_at    timestamptz,
    holder      text        NOT NULL DEFAULT '',
    lease_until timestamptz,
    fence       bigint      NOT NULL DEFAULT 0,
    parts       jsonb       NOT NULL DEFAULT '[]',
    after_key   text        COLLATE "C" NOT NULL DEFAULT '',
    listed      bigint      NOT NULL DEFAULT 0,
    known       bigint      NOT NULL DEFAULT 0,
    missing     bigint      NOT NULL DEFAULT 0,
    recovered   bigint      NOT NULL DEFAULT 0,
    vanished    bigint      NOT NULL DEFAULT 0,
    unissued    bigint      NOT NULL DEFAULT 0,
    too_old     bigint      NOT NULL DEFAULT 0,
    problem     text
);

COMMENT ON TABLE upcall.reconcile_runs IS 'Runs of receiver reconcile. One that was interrupted is resumed from its row.';
COMMENT ON COLUMN upcall.reconcile_runs.run_id      IS 'Identity of the run. Never null.';
COMMENT ON COLUMN upcall.reconcile_runs.bucket      IS 'The bucket that is compared with the log. Never null.';
COMMENT ON COLUMN upcall.reconcile_runs.prefix      IS 'Only objects whose keys begin with it. Empty for all; never null.';
COMMENT ON COLUMN upcall.reconcile_runs.since       IS 'Only objects that were modified from then on. Null for all.';
COMMENT ON COLUMN upcall.reconcile_runs.inventory   IS 'Where the inventory is that was read instead of a listing, and when it was made. Empty for a listing; never null.';
COMMENT ON COLUMN upcall.reconcile_runs.dry_run     IS 'Whether nothing was written but this row and reconcile_objects. Never null.';
COMMENT ON COLUMN upcall.reconcile_runs.stage       IS 'What it does: list; compare; recover, what is missing; vanish, look for what is gone; note, that it is gone; done, or failed. Never null.';
COMMENT ON COLUMN upcall.reconcile_runs.begun_at    IS 'When it began, by the clock of the program. Never null.';
COMMENT ON COLUMN upcall.reconcile_runs.listed_at   IS 'Objects that were stored before this are in the listing: begun_at, or when the inventory began. Never null.';
COMMENT ON COLUMN upcall.reconcile_runs.begun_xid   IS 'The next transaction when it began: objects are compared once the roll-ups have read the log up to it. Never null.';
COMMENT ON COLUMN upcall.reconcile_runs.ended_at    IS 'When it ended. Null if it has not: it runs, or was interrupted.';
COMMENT ON COLUMN upcall.reconcile_runs.holder      IS 'The process that has the lease, or had it last. Never null.';
COMMENT ON COLUMN upcall.reconcile_runs.lease_until IS 'Until when no other process may take it. Null once it has ended.';
COMMENT ON COLUMN upcall.reconcile_runs.fence       IS 'How often the lease was taken, so that a former holder cannot write. Never null.';
COMMENT ON COLUMN upcall.reconcile_runs.parts       IS 'How far each part of the listing, or each file of the inventory, was read. Never null.';
COMMENT ON COLUMN upcall.reconcile_runs.after_key   IS 'How far the other stages are, in the order of keys. Never null.';
COMMENT ON COLUMN upcall.reconcile_runs.listed      IS 'Objects that were listed. Never null.';
COMMENT ON COLUMN upcall.reconcile_runs.known       IS 'Objects of whose content the log told. Never null.';
COMMENT ON COLUMN upcall.reconcile_runs.missing     IS 'Uploads that were issued, newer than retention, and not known when the run looked. Never null.';
COMMENT ON COLUMN upcall.reconcile_runs.recovered   IS 'Those of them that became rows of upload_events. Never null.';
COMMENT ON COLUMN upcall.reconcile_runs.vanished    IS 'Objects of the log that are not in the bucket, and of whose removal nothing was known. Never null.';
COMMENT ON COLUMN upcall.reconcile_runs.unissued    IS 'Objects that were never issued. Never null.';
COMMENT ON COLUMN upcall.reconcile_runs.too_old     IS 'Objects that are not known and older than retention. Never null.';
COMMENT ON COLUMN upcall.reconcile_runs.problem     IS 'Why it failed. Null if it did not.';

-- No identity of its own: what is read most is a range of keys of one run.
CREATE TABLE upcall.reconcile_objects (
    run_id        bigint      NOT NULL,
    object_key    text        COLLATE "C" NOT NULL,
    etag          text,
    size          bigint,
    last_modified timestamptz,
    state         text        CHECK (state IN ('candidate', 'missing', 'recovered', 'vanished')),
    PRIMARY KEY (run_id, object_key)
);
CREATE INDEX reconcile_objects_state ON upcall.reconcile_objects (run_id, state, object_key) WHERE state IS NOT NULL;

COMMENT ON TABLE upcall.reconcile_objects IS 'What a run found in the bucket. Rows of former runs are removed when another begins.';
COMMENT ON COLUMN upcall.reconcile_objects.run_id        IS 'reconcile_runs.run_id. Never null.';
COMMENT ON COLUMN upcall.reconcile_objects.object_key    IS 'Full object key. Never null.';
COMMENT ON COLUMN upcall.reconcile_objects.etag          IS 'ETag in capitals without quotes. Null if the inventory has none.';
COMMENT ON COLUMN upcall.reconcile_objects.size          IS 'Size in bytes. Null if the inventory has none.';
COMMENT ON COLUMN upcall.reconcile_objects.last_modified IS 'When the object was stored, by OSS''s clock; or when it was found to be gone. Null if the inventory does not say.';
COMMENT ON COLUMN upcall.reconcile_objects.state         IS 'candidate: seems to be missing, and is to be looked at; missing; recovered; or vanished, which was not in the bucket when last_modified says. Null for all others.';
