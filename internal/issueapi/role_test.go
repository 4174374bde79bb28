package issueapi

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/apikey"
	"upcall/internal/eventstore"
)

// olderKeys reads keys as issuers did before keys could have roles.
type olderKeys struct{ pool *pgxpool.Pool }

func (k olderKeys) List(ctx context.Context) ([]eventstore.APIKey, error) {
	rows, _ := k.pool.Query(ctx, "SELECT id, hash, policy, created_at FROM upcall.api_keys ORDER BY created_at, id")
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (key eventstore.APIKey, err error) {
		err = row.Scan(&key.ID, &key.Hash, &key.Policy, &key.CreatedAt)
		return key, err
	})
}

// TestRoleKeys checks that no issuer, not even an older one, takes a key of the receiver's API.
func TestRoleKeys(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	role, hash, err := apikey.New("viewer")
	if err != nil {
		t.Fatal(err)
	}
	key := eventstore.APIKey{ID: "viewer", Hash: hash[:], Role: "operator", CreatedAt: time.Now()}
	if err := eventstore.NewRoleKeys(s.pool).Add(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if got := s.call(t, http.MethodPost, "/v1/uploads", role, goodBody); got.status != http.StatusUnauthorized || s.rows(t) != 0 {
		t.Errorf("%d %s", got.status, got.raw)
	}
	older := newKeyring(olderKeys{s.pool}, 1, 1, time.Now)
	if who, err := older.check(t.Context(), header(s.photos)); err != nil || who.policy != "photos" {
		t.Errorf("a key with a policy: %+v, %v", who, err)
	}
	if who, err := older.check(t.Context(), header(role)); kindOf(err) != kindUnauthenticated {
		t.Errorf("an older issuer takes a key with a role: %+v, %v", who, err)
	}
}
