package eventstore

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"upcall/internal/dbtest"
)

// TestPlan checks that the plans of the writers' statements do not scan whole tables. PostgreSQL
// plans them once, perhaps with few rows, and uses the plans for millions of rows.
func TestPlan(t *testing.T) {
	t.Parallel()
	statements := []statement{eventKind.insert, issuedKind.insert}
	tables := []string{"callback_ids", "upload_events", "revoked_uploads", "refused_callbacks", "issued_uploads"}
	for _, few := range []bool{false, true} {
		pool := dbtest.Pool(t, Open)
		if err := EnsurePartitions(t.Context(), pool, at); err != nil {
			t.Fatal(err)
		}
		if few { // with one page in each table, scans look cheap
			r := newRecorder(t, Config{Pool: pool})
			for range 20 {
				record(t, r, smallEvent(), false)
			}
			for _, table := range tables {
				if _, err := pool.Exec(t.Context(), "ANALYZE upcall."+table); err != nil {
					t.Fatal(err)
				}
			}
		}
		conn, err := dbtest.Beside(t, pool, OpenRecorder).Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Release()
		for _, s := range statements {
			if _, err := conn.Conn().Prepare(t.Context(), s.name, s.sql); err != nil {
				t.Fatal(err)
			}
			nulls := strings.TrimSuffix(strings.Repeat("NULL, ", len(s.columns)), ", ")
			rows, err := conn.Query(t.Context(), "EXPLAIN EXECUTE "+s.name+"("+nulls+")", pgx.QueryExecModeSimpleProtocol)
			if err != nil {
				t.Fatal(err)
			}
			plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				t.Fatal(err)
			}
			if text := strings.Join(plan, "\n"); strings.Contains(text, "Seq Scan") || strings.Contains(text, "JIT") {
				t.Errorf("%s, few rows: %v:\n%s", s.name, few, text)
			}
		}
	}
}
