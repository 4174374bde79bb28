-- The ids of callbacks are digests, which are in random order: with tens of millions of
-- them, each new id read, dirtied and logged a page of the index that nothing else used. The
-- key now begins with the upload, which the callback's token names. Issuers number uploads by
-- time, so new rows go to the right edge of the index.
--
-- Existing rows have zeros, as have those of a program that knows only 0003; a program that
-- knows 0004 looks for both. The older program does not find what was recorded with an
-- upload, so stop the last of them before a repeat comes that must not count.
ALTER TABLE upcall.callback_ids
    ADD COLUMN upload_id uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    DROP CONSTRAINT callback_ids_pkey,
    ADD PRIMARY KEY (upload_id, id);

COMMENT ON TABLE upcall.callback_ids IS 'Every callback seen, once. Rows are kept for at least 30 days, which is longer than any upload token lives.';
COMMENT ON COLUMN upcall.callback_ids.upload_id IS 'upload_events.upload_id; zeros where that is null, and in rows from before migration 4. Never null.';
