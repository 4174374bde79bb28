package eventstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/dbtest"
	"upcall/internal/event"
	"upcall/internal/testing/wait"
)

// aboutToCommit returns another receiver's transaction that records the event.
func aboutToCommit(t *testing.T, pool *pgxpool.Pool, e *event.Event) pgx.Tx {
	t.Helper()
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tx.Rollback(context.Background()) })
	if _, err := tx.Exec(t.Context(), "INSERT INTO upcall.callback_ids (upload_id, id, received_at) VALUES ($1, $2, now())",
		e.UploadID.UUID, e.ID); err != nil {
		t.Fatal(err)
	}
	return tx
}

// waitsForLock returns when the recorder waits for another transaction.
func waitsForLock(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	wait.Until(t, "the recorder waits for the other transaction", func() bool {
		var waits bool
		err := pool.QueryRow(t.Context(), `SELECT EXISTS (
			SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')`).Scan(&waits)
		return err == nil && waits
	})
}

// TestWaitsForOtherCommit checks that a duplicate is reported only when the other is committed.
func TestWaitsForOtherCommit(t *testing.T) {
	t.Parallel()
	for _, commit := range []bool{true, false} {
		t.Run(fmt.Sprint("commit=", commit), func(t *testing.T) {
			t.Parallel()
			pool := dbtest.Pool(t, Open)
			r := newRecorder(t, Config{Pool: pool})
			e := smallEvent()
			tx := aboutToCommit(t, pool, e)
			outcome := make(chan bool)
			go func() {
				duplicate, err := r.Record(context.Background(), e)
				if err != nil {
					t.Error(err)
				}
				outcome <- duplicate
			}()
			waitsForLock(t, pool)
			end := tx.Rollback
			if commit {
				end = tx.Commit
			}
			if err := end(t.Context()); err != nil {
				t.Fatal(err)
			}
			if duplicate := <-outcome; duplicate != commit {
				t.Errorf("duplicate = %t", duplicate)
			}
		})
	}
}

// TestFindsLeaveRoom: however many events are looked for at once, the writers have connections.
func TestFindsLeaveRoom(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	r := newRecorder(t, Config{Pool: pool})
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.Background())
	if _, err := tx.Exec(t.Context(), "LOCK TABLE upcall.callback_ids IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	var finds sync.WaitGroup
	for range 50 {
		finds.Go(func() {
			if _, err := r.Find(context.Background(), uuid.New(), uuid.NullUUID{}); err != nil {
				t.Error(err)
			}
		})
	}
	waitsForLock(t, pool)
	wait.Until(t, "all that may look have a connection", func() bool { return len(r.finds) == cap(r.finds) })
	for range r.group.config.Writers {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		conn, err := r.group.config.Pool.Acquire(ctx)
		cancel()
		if err != nil {
			t.Fatalf("no connection is left: %v", err)
		}
		defer conn.Release()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Find(ctx, uuid.New(), uuid.NullUUID{}); !errors.Is(err, event.ErrUnavailable) {
		t.Errorf("one that cannot wait: %v, want event.ErrUnavailable", err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	finds.Wait()
}
