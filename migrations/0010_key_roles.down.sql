DELETE FROM upcall.api_keys WHERE role IS NOT NULL;
ALTER TABLE upcall.api_keys DROP COLUMN role;
COMMENT ON TABLE upcall.api_keys IS 'Keys of the issuer''s HTTP API. A key that was revoked stays, for the uploads that name it.';
COMMENT ON COLUMN upcall.api_keys.hash   IS 'Digest of the secret part, which is not stored. Never null.';
COMMENT ON COLUMN upcall.api_keys.policy IS 'Name of the policy in the issuer''s policy file that says what the key may do. Never null.';
