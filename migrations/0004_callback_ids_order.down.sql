-- Fails if two uploads have the same id, which happens only if receivers' settings differ.
ALTER TABLE upcall.callback_ids
    DROP COLUMN upload_id, -- and the key with it
    ADD PRIMARY KEY (id);
