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

// An APIKey is a key of the issuer's HTTP API, as a row of upcall.api_keys.
type APIKey struct {
	ID        string    // the public part
	Hash      []byte    // digest of the secret part
	Policy    string    // name of its policy
	CreatedAt time.Time // PostgreSQL keeps microseconds
	RevokedAt time.Time // zero while it is valid
}

// APIKeys are the keys of the issuer's HTTP API. Every error of its methods wraps
// [ErrExists], [ErrNotFound], [event.ErrUnavailable] or [event.ErrUnstorable].
type APIKeys struct {
	pool *pgxpool.Pool
}

// NewAPIKeys returns the keys in the database of a pool from [Open].
func NewAPIKeys(pool *pgxpool.Pool) *APIKeys { return &APIKeys{pool} }

// Add adds a valid key. The error wraps [ErrExists] if there is a key with its ID, revoked or
// not.
func (k *APIKeys) Add(ctx context.Context, key APIKey) error {
	if err := storable(key.ID, key.Policy); err != nil {
		return fmt.Errorf("add API key: %w", err)
	}
	added, err := execOne(ctx, k.pool, nil, `
		INSERT INTO upcall.api_keys (id, hash, policy, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
		key.ID, key.Hash, key.Policy, key.CreatedAt)
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
	rows, _ := k.pool.Query(ctx, "SELECT id, hash, policy, created_at, revoked_at FROM upcall.api_keys ORDER BY created_at, id")
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
	revoked, err := execOne(ctx, k.pool, nil, "UPDATE upcall.api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1", id)
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
	err := row.Scan(&key.ID, &key.Hash, &key.Policy, &key.CreatedAt, (*zeronull.Timestamptz)(&key.RevokedAt))
	return key, err
}
