-- Keys of the receiver's API. They have a role where those of the issuer have a policy. Issuers
-- that do not know of roles refuse them because their hash is a byte longer.

ALTER TABLE upcall.api_keys ADD COLUMN role text;
ALTER TABLE upcall.api_keys ADD CONSTRAINT api_keys_role CHECK (
    role IS NULL OR role IN ('viewer', 'operator') AND policy = '' AND length(hash) = 33);

COMMENT ON TABLE upcall.api_keys IS 'Keys of the issuer''s HTTP API, which have a policy, and of the receiver''s, which have a role. A key that was revoked stays, for the uploads that name it.';
COMMENT ON COLUMN upcall.api_keys.hash   IS 'Digest of the secret part, which is not stored; with a role, a byte 1 before it. Never null.';
COMMENT ON COLUMN upcall.api_keys.policy IS 'Name of the policy in the issuer''s policy file that says what the key may do; empty for a key with a role. Never null.';
COMMENT ON COLUMN upcall.api_keys.role   IS 'viewer or operator: what the key may do with the receiver''s API. Null for a key with a policy.';
