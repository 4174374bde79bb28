package fold

import (
	"fmt"
	"testing"

	"github.com/google/uuid"

	"upcall/internal/dbtest"
	"upcall/internal/testing/pgbouncer"
	"upcall/internal/testing/toolchain"
)

// TestPooler folds through a pooler in transaction mode that gives no two transactions the same session.
func TestPooler(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "pgbouncer")
	direct := dbtest.URL(t)
	w := worldAt(t, pgbouncer.Start(t, direct, "transaction", "server_round_robin = 1"), func(c *Config) { c.Grace = 0 })
	for n := range 3 {
		key := fmt.Sprint(n)
		known, issued := valid(uuid.New()), valid(w.issue(t, "issued"+key, `{"uid": "42"}`))
		w.record(t, callback(known, "known"+key, "RK"+key, "E"), notification(known, "known"+key, "RK"+key, "E"),
			notification(issued, "issued"+key, "RI"+key, "E"), notification(uuid.NullUUID{}, "foreign"+key, "RF"+key, "E"))
		w.fold(t)
		w.record(t, callback(issued, "issued"+key, "RI"+key, "E"))
	}
	got := fmt.Sprint(w.lines(t, "SELECT outcome || ' ' || count(*) FROM upcall.notifications GROUP BY outcome ORDER BY outcome"))
	if want := "[foreign 3 known 3 recorded 3]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
