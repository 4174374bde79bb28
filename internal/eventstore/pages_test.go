package eventstore

import (
	"testing"
	"time"

	"upcall/internal/dbtest"
	"upcall/migrations"
)

// TestWaitingFails: no receiver ends because PostgreSQL does.
func TestWaitingFails(t *testing.T) {
	t.Parallel()
	pool := dbtest.Open(t, dbtest.URL(t), Open)
	if _, err := pool.Exec(t.Context(), "DROP SCHEMA upcall CASCADE"); err != nil {
		t.Fatal(err)
	}
	if n, _, err := Waiting(t.Context(), pool, 1); err == nil {
		t.Error(n, err)
	}
}

// TestMonthFails: a statement that fails after it was prepared is an error, and no panic.
func TestMonthFails(t *testing.T) {
	t.Parallel()
	pool := dbtest.Open(t, dbtest.URL(t), Open)
	if err := EnsurePartitions(t.Context(), pool, time.Now()); err != nil {
		t.Fatal(err)
	}
	pages := NewPages(pool)
	if id, err := pages.Month(t.Context(), time.Now()); err != nil || id == 0 {
		t.Fatal(id, err)
	}
	if _, err := pool.Exec(t.Context(), "DROP SCHEMA upcall CASCADE"); err != nil {
		t.Fatal(err)
	}
	if id, err := pages.Month(t.Context(), time.Now()); err == nil || migrations.ServerError(err).Code != "3F000" {
		t.Error(id, err)
	}
}
