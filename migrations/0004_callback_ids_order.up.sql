-- The ids of callbacks are digests, which have no order: with tens of millions of them,
-- each new one read, dirtied and logged a page of the index that nothing else was using.
-- The upload, which the callback names in its token, stands before the id in the key now,
-- because issuers number uploads by time: new rows go to the right edge of the index.
--
-- Rows that are there keep zeros, as do those that a program which knows only 0003 goes on
-- writing; who knows 0004 looks for both. Such a program itself does not know what was
-- recorded with an upload: stop the last one before a repeat comes that must not count.
ALTER TABLE upcall.callback_ids
    ADD COLUMN upload_id uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    DROP CONSTRAINT callback_ids_pkey,
    ADD PRIMARY KEY (upload_id, id);

COMMENT ON TABLE upcall.callback_ids IS 'Every callback seen, once. Rows are kept for at least 30 days, which is longer than any upload token lives.';
COMMENT ON COLUMN upcall.callback_ids.upload_id IS 'upload_events.upload_id; zeros where that is null, and in rows from before migration 4. Never null.';
