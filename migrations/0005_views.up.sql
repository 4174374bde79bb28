-- Views are in migrations/views from here on: each `migrate up` makes those that are new
-- or have changed, and this table says what it made. The two that 0002 made stay until then.
-- A program that knows only 0004 does not look here, and reads the views as before.
CREATE TABLE upcall.schema_views (
    schema_version bigint  NOT NULL,
    name           text    NOT NULL,
    position       integer NOT NULL,
    edition        integer NOT NULL,
    definition     text    NOT NULL,
    PRIMARY KEY (schema_version, name)
);

COMMENT ON TABLE upcall.schema_views IS 'The views that `migrate up` made, for the newest version of the schema and for those before it, which `migrate down` leads back to.';
COMMENT ON COLUMN upcall.schema_views.schema_version IS 'Version of the schema that the view is for. Never null.';
COMMENT ON COLUMN upcall.schema_views.name           IS 'Name of the view in the schema upcall. Never null.';
COMMENT ON COLUMN upcall.schema_views.position       IS 'Order in which the views are made: a view comes after those that it reads. Never null.';
COMMENT ON COLUMN upcall.schema_views.edition        IS 'Number of the set of views, the same for all of one version. A program whose own is lower leaves them alone. Never null.';
COMMENT ON COLUMN upcall.schema_views.definition     IS 'The SQL that made the view and its comments. Never null.';
