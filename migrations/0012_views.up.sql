-- What views need beside the roll-ups: the events that do not count, and objects by key alone.

CREATE TABLE upcall.rollup_superseded (
    generation  smallint    NOT NULL,
    received_at timestamptz NOT NULL,
    event_id    uuid        NOT NULL,
    PRIMARY KEY (generation, received_at, event_id)
);

COMMENT ON TABLE upcall.rollup_superseded IS 'Events that count nowhere, because another event tells of the same upload and is preferred: a callback to a notification, and that to a listing.';
COMMENT ON COLUMN upcall.rollup_superseded.generation  IS 'rollup_generations.generation. Never null.';
COMMENT ON COLUMN upcall.rollup_superseded.received_at IS 'upload_events.received_at. Never null.';
COMMENT ON COLUMN upcall.rollup_superseded.event_id    IS 'upload_events.id. Never null.';

-- Keys first, so that an object is found without its bucket, too.
ALTER TABLE upcall.rollup_objects
    DROP CONSTRAINT rollup_objects_pkey,
    ADD PRIMARY KEY (generation, object_key, bucket);
