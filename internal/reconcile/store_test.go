package reconcile

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"upcall/internal/testing/wait"
)

// TestClearBesideOthers begins a run while another session uses the table: readers of the log wait for a
// transaction that writes, so it must not wait for that session.
func TestClearBesideOthers(t *testing.T) {
	t.Parallel()
	const waiting = `SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
		WHERE a.datname = current_database() AND NOT l.granted AND l.relation = 'upcall.reconcile_objects'::regclass`
	for name, mode := range map[string]string{"a reader": "ACCESS SHARE", "vacuum": "SHARE UPDATE EXCLUSIVE"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, b := newWorld(t), newBucket()
			w.exec(t, "INSERT INTO upcall.reconcile_objects (run_id, object_key) VALUES (0, 'of a former run')")
			cfg := w.config(t, b).withDefaults()
			row, _, err := acquire(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			other, err := w.direct.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func(tx pgx.Tx) { _ = tx.Rollback(t.Context()) }(other)
			if _, err := other.Exec(t.Context(), "LOCK TABLE upcall.reconcile_objects IN "+mode+" MODE"); err != nil {
				t.Fatal(err)
			}
			r := &run{Config: cfg, record: row, now: now}
			began, done := time.Now(), make(chan error, 1)
			go func() { done <- r.clear(t.Context()) }()
			if name == "vacuum" {
				wait.Until(t, "the run waits", func() bool { return w.number(t, waiting) > 0 })
				if n := w.number(t, waiting+" AND a.backend_xid IS NOT NULL"); n > 0 {
					t.Error("it waits in a transaction that writes")
				}
				if err := other.Rollback(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); name == "a reader" && took > 1500*time.Millisecond {
				t.Errorf("it waited for the reader: %s", took)
			}
			if n := w.number(t, "SELECT count(*) FROM upcall.reconcile_objects"); n > 0 {
				t.Errorf("%d rows are left", n)
			}
		})
	}
}
