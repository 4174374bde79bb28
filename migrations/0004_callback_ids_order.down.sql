-- Fails if an id stands with two uploads, which no receiver of one setting writes.
ALTER TABLE upcall.callback_ids
    DROP COLUMN upload_id, -- and the key with it
    ADD PRIMARY KEY (id);
