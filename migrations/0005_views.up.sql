-- From here on, views are in migrations/views: `migrate up` makes them when they have
-- changed, and this table says which edition it made. The two views of 0002 stay until then.
-- A program that knows only 0004 ignores this table, and reads the views as before.
CREATE TABLE upcall.schema_views (
    edition integer NOT NULL
);

COMMENT ON TABLE upcall.schema_views IS 'Which views `migrate up` made last: one row.';
COMMENT ON COLUMN upcall.schema_views.edition IS 'Number of the set of views. A program whose own number is lower leaves the views alone. Never null.';

COMMENT ON COLUMN upcall.api_keys.revoked_at IS 'When the key was revoked, by PostgreSQL''s clock. Null while it is valid.';
