package eventstore

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype/zeronull"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/event"
)

// An APIKey is a row of upcall.api_keys: a key of the issuer's HTTP API, which has a policy, or
// of the receiver's, which has a role.
type APIKey struct {
	ID        string    // the public part
	Hash      []byte    // digest of the secret part
	Policy    string    // name of its policy
	Role      string    // viewer or operator
	CreatedAt time.Time // PostgreSQL keeps microseconds
	RevokedAt time.Time // zero while it is valid
}

// APIKeys are the keys of one of the two APIs. Every error of its methods wraps
// [ErrExists], [ErrNotFound], [event.ErrUnavailable] or [event.ErrUnstorable].
type APIKeys struct {
	pool  *pgxpool.Pool
	roles bool
}

// roleMark is before the stored hash of a key with a role. Issuers older than roles ignore a key
// whose hash is too long, so that none of them takes it for a key with a policy.
const roleMark = 1

// NewAPIKeys returns the keys of the issuer's API in the database of a pool from [Open].
func NewAPIKeys(pool *pgxpool.Pool) *APIKeys { return &APIKeys{pool: pool} }

// NewRoleKeys returns the keys of the receiver's API.
func NewRoleKeys(pool *pgxpool.Pool) *APIKeys { return &APIKeys{pool: pool, roles: true} }

// Add adds a valid key. The error wraps [ErrExists] if there is a key with its ID, revoked or
// not, in either API.
func (k *APIKeys) Add(ctx context.Context, key APIKey) error {
	if (key.Role != "") != k.roles || k.roles && key.Policy != "" {
		return fmt.Errorf("add API key: %w: it has the role %q and the policy %q", event.ErrUnstorable, key.Role, key.Policy)
	}
	if err := storable(key.ID, key.Policy, key.Role); err != nil {
		return fmt.Errorf("add API key: %w", err)
	}
	hash := key.Hash
	if k.roles {
		hash = append([]byte{roleMark}, hash...)
	}
	added, err := execOne(ctx, k.pool, nil, `
		INSERT INTO upcall.api_keys (id, hash, policy, role, created_at) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`,
		key.ID, hash, key.Policy, zeronull.Text(key.Role), key.CreatedAt)
	switch {
	case isDataError(err):
		return fmt.Errorf("add API key: %w: %w", event.ErrUnstorable, err)
	case err != nil:
		return fmt.Errorf("add API key: %w", unavailable(err))
	case added.RowsAffected() == 0:
		return fmt.Errorf("add API key %q: %w", key.ID, ErrExists)
	}
	return nil
}

// List returns all keys, including revoked ones, the oldest first.
func (k *APIKeys) List(ctx context.Context) ([]APIKey, error) {
	rows, _ := k.pool.Query(ctx, `SELECT id, hash, policy, role, created_at, revoked_at FROM upcall.api_keys
		WHERE (role IS NOT NULL) = $1 ORDER BY created_at, id`, k.roles)
	keys, err := pgx.CollectRows(rows, scanAPIKey)
	if err != nil {
		return nil, fmt.Errorf("list API keys: %w", unavailable(err))
	}
	return keys, nil
}

// Revoke disables a key permanently. Revoking it again changes nothing. The error wraps
// [ErrNotFound] if there is no such key.
func (k *APIKeys) Revoke(ctx context.Context, id string) error {
	if storable(id) != nil {
		return fmt.Errorf("revoke API key: %w", ErrNotFound)
	}
	revoked, err := execOne(ctx, k.pool, nil, `
		UPDATE upcall.api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1 AND (role IS NOT NULL) = $2`, id, k.roles)
	switch {
	case err != nil:
		return fmt.Errorf("revoke API key: %w", unavailable(err))
	case revoked.RowsAffected() == 0:
		return fmt.Errorf("revoke API key %q: %w", id, ErrNotFound)
	}
	return nil
}

func scanAPIKey(row pgx.CollectableRow) (APIKey, error) {
	var key APIKey
	err := row.Scan(&key.ID, &key.Hash, &key.Policy, (*zeronull.Text)(&key.Role), &key.CreatedAt, (*zeronull.Timestamptz)(&key.RevokedAt))
	if key.Role != "" && err == nil {
		key.Hash = key.Hash[1:]
	}
	return key, err
}
