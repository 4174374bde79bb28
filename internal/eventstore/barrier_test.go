package eventstore

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/dbtest"
	"upcall/internal/event"
	"upcall/internal/testing/pgbouncer"
	"upcall/internal/testing/toolchain"
	"upcall/internal/testing/wait"
)

// A pair is a primary that can be made to wait for a missing synchronous standby.
type pair struct{ pool *pgxpool.Pool } // of a superuser

func newPair(t *testing.T, url string) *pair {
	return &pair{dbtest.Open(t, url, Open)}
}

func (p *pair) exec(t *testing.T, sql string) {
	t.Helper()
	if _, err := p.pool.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

// standby makes the primary wait for a missing standby, or stops that if names is empty.
func (p *pair) standby(t *testing.T, names string) {
	t.Helper()
	p.exec(t, "ALTER SYSTEM SET synchronous_standby_names = '"+names+"'")
	p.exec(t, "SELECT pg_reload_conf()")
	if names == "" {
		return
	}
	// The setting applies once the checkpointer has read it, which only a commit can show.
	wait.Until(t, "commits wait for the standby", func() bool {
		done := make(chan error, 1)
		go func() {
			_, err := p.pool.Exec(t.Context(), "SELECT pg_logical_emit_message(true, 'test', '')")
			done <- err
		}()
		waits := false
		wait.Until(t, "a commit ends or waits", func() bool {
			waits = p.waiters(t, true) > 0
			return waits || len(done) > 0
		})
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		return waits
	})
}

// waiters returns how many commits wait for the standby, and optionally ends their wait.
func (p *pair) waiters(t *testing.T, cancel bool) (n int) {
	t.Helper()
	err := p.pool.QueryRow(t.Context(), `
		WITH waiter AS MATERIALIZED (SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep')
		SELECT count(CASE WHEN $1 THEN pg_cancel_backend(pid) ELSE true END) FROM waiter`, cancel).Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestNotReplicated runs without the synchronous standby. A commit whose wait for it is
// interrupted must fail, and so must a repeat of that commit.
func TestNotReplicated(t *testing.T) {
	t.Parallel()
	notReplicatedThrough(t, func(url string) string { return url })
}

// TestNotReplicatedPooled: the same through a pooler that gives each transaction another session.
func TestNotReplicatedPooled(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "pgbouncer")
	notReplicatedThrough(t, func(url string) string { return pgbouncer.Start(t, url, "transaction") })
}

func notReplicatedThrough(t *testing.T, pooler func(url string) string) {
	t.Helper()
	server := dbtest.NewServer(t)
	pair := newPair(t, server.URL())
	pair.exec(t, "ALTER ROLE CURRENT_USER SET client_min_messages = error") // which would hide PostgreSQL's warning
	through := pooler(server.URL())
	config := Config{Pool: dbtest.Open(t, through, OpenRecorder), CommitTimeout: time.Minute}
	recorder, err := NewRecorder(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(recorder.Close)
	ledger, err := NewLedger(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ledger.Close)
	uploads := NewUploads(dbtest.Open(t, through, Open))
	keys := NewAPIKeys(dbtest.Open(t, through, Open))

	e := &event.Event{ID: uuid.New(), ReceivedAt: time.Now(), UploadID: uuid.NullUUID{UUID: uuid.New(), Valid: true}}
	e.Callback.Bucket = "demo"
	issued := IssuedUpload{ID: uuid.New(), Bucket: "demo", Object: "a", IssuedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour)}
	if err := EnsurePartitions(t.Context(), pair.pool, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := keys.Add(t.Context(), APIKey{ID: "web", Hash: make([]byte, 32), Policy: "photos", CreatedAt: time.Now()}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for _, step := range []struct {
		name string
		work func() error
	}{
		{"issue", func() error { return ledger.Issue(ctx, issued) }},
		{"issue again", func() error { return ledger.Issue(ctx, issued) }},
		{"revoke", func() error { return uploads.Revoke(ctx, issued.ID) }},
		{"revoke again", func() error { return uploads.Revoke(ctx, issued.ID) }},
		{"revoke a key", func() error { return keys.Revoke(ctx, "web") }},
		{"record", func() error { _, err := recorder.Record(ctx, e); return err }},
		{"record again", func() error { _, err := recorder.Record(ctx, e); return err }},
		{"find", func() error { _, err := recorder.Find(ctx, e.ID, e.UploadID); return err }},
	} {
		for _, cut := range []bool{true, false} {
			pair.standby(t, "nobody")
			done := make(chan error, 1)
			go func() { done <- step.work() }()
			wait.Until(t, step.name+" waits for the standby", func() bool { return len(done) > 0 || pair.waiters(t, false) > 0 })
			if len(done) > 0 {
				t.Fatalf("%s does not wait for the standby: %v", step.name, <-done)
			}
			if cut {
				pair.waiters(t, true)
			} else {
				pair.standby(t, "")
			}
			if err := <-done; cut && !errors.Is(err, event.ErrUnavailable) || !cut && err != nil {
				t.Errorf("%s, wait interrupted %t: %v", step.name, cut, err)
			}
		}
	}
	if duplicate, err := recorder.Record(ctx, e); !duplicate || err != nil {
		t.Errorf("recorded again with the standby: duplicate %t, %v", duplicate, err)
	}
}
