-- The older words say the same, and are not restored.
SELECT;
