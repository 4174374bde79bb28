DROP TABLE upcall.erasures;

-- The role of analysts stays, because other databases of the cluster may use it. Without this, it
-- could not be dropped by hand.
DO $$
BEGIN
    REVOKE USAGE ON SCHEMA upcall FROM upcall_analyst;
EXCEPTION WHEN undefined_object OR insufficient_privilege THEN NULL;
END
$$;
