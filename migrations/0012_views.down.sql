ALTER TABLE upcall.rollup_objects
    DROP CONSTRAINT rollup_objects_pkey,
    ADD PRIMARY KEY (generation, bucket, object_key);
DROP TABLE upcall.rollup_superseded;
