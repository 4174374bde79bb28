package dbtest

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"upcall/internal/eventstore"
	"upcall/migrations"
)

func TestMain(m *testing.M) {
	// The shared server must not leave a goroutine, so that tests can check for leaks.
	goleak.VerifyTestMain(m)
}

func TestEachTestHasItsOwn(t *testing.T) {
	t.Parallel()
	for range 8 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			pool := Pool(t, eventstore.Open)
			if err := migrations.Check(t.Context(), pool); err != nil {
				t.Error(err)
			}
			tag, err := pool.Exec(t.Context(), "INSERT INTO upcall.callback_ids VALUES ('00000000-0000-0000-0000-000000000001', now())")
			if err != nil || tag.RowsAffected() != 1 {
				t.Errorf("got %v, %v", tag, err)
			}
		})
	}
}

func TestEmpty(t *testing.T) {
	t.Parallel()
	conn, err := pgx.Connect(t.Context(), Empty(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var schemas int
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_namespace WHERE nspname = 'upcall'").Scan(&schemas); err != nil ||
		schemas != 0 {
		t.Errorf("got %d schemas, %v", schemas, err)
	}
}

func TestIsDropped(t *testing.T) {
	t.Parallel()
	var gone string
	t.Run("", func(t *testing.T) { gone = URL(t) })
	if conn, err := pgx.Connect(t.Context(), gone); err == nil {
		conn.Close(t.Context())
		t.Error("the database still exists after its test")
	}
}

func BenchmarkURL(b *testing.B) {
	URL(b) // starts the server
	for b.Loop() {
		URL(b)
	}
}
