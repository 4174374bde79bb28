package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/feed"
	"upcall/internal/testing/clitest"
)

// TestFeed shows what holds the log, and repairs it, as docs/feed.md says.
func TestFeed(t *testing.T) {
	t.Parallel()
	url := dbtest.NewServer(t).URL()
	env := clitest.Env{"UPCALL_DATABASE_URL": url}
	pool := dbtest.Open(t, url, eventstore.Open)
	if err := eventstore.EnsurePartitions(t.Context(), pool, time.Now()); err != nil {
		t.Fatal(err)
	}
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const insert = "INSERT INTO upcall.upload_events (id, received_at, source) VALUES (gen_random_uuid(), now(), 'callback')"
	if _, err := tx.Exec(t.Context(), insert); err != nil {
		t.Fatal(err)
	}
	dbtest.Execute(t, url, insert)
	dbtest.Execute(t, url, `INSERT INTO upcall.feed_consumers (name, system_identifier, timeline, recorded_xid, id)
		SELECT 'mine', system_identifier, 1, '3', gen_random_uuid() FROM pg_control_system()`)
	text := program.Output(t, env, "feed", "status")
	for _, want := range []string{"complete below transaction ", "held back: 1 events", "idle in transaction", "INSERT INTO upcall",
		"CONSUMER", "mine"} {
		if !strings.Contains(text, want) {
			t.Errorf("status lacks %q:\n%s", want, text)
		}
	}
	var status feed.Status
	if err := json.Unmarshal([]byte(program.Output(t, env, "feed", "status", "--format", "json")), &status); err != nil ||
		len(status.HeldBy) != 1 || status.HeldEvents != 1 || len(status.Consumers) != 1 || status.Consumers[0].LagEvents != 1 {
		t.Errorf("got %+v, %v", status, err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}

	if got := program.Output(t, env, "feed", "repair"); got != "nothing to repair\n" {
		t.Errorf("repair printed %q", got)
	}
	dbtest.Execute(t, url, `UPDATE upcall.upload_events SET recorded_xid = '123456789'
		WHERE recorded_xid = (SELECT recorded_xid FROM upcall.upload_events LIMIT 1)`)
	if text := program.Output(t, env, "feed", "status"); !strings.Contains(text, "cannot be read: "+feed.ErrRestored.Error()) {
		t.Errorf("status says nothing of restored events:\n%s", text)
	}
	role := clitest.Env{"UPCALL_DATABASE_URL": dbtest.Role(t, url, dbtest.Grants(t, "../../docs/database.md", "upcall_receiver")...)}
	if err := program.Error(t, role, "feed", "repair"); !strings.Contains(err.Error(), "permission denied") ||
		strings.Contains(err.Error(), "\n") {
		t.Errorf("repair with a role that owns nothing: %v", err)
	}
	if got := program.Output(t, env, "feed", "repair"); !strings.HasPrefix(got, "cleared the transaction numbers of ") {
		t.Errorf("repair printed %q", got)
	}
	if text := program.Output(t, env, "feed", "status"); strings.Contains(text, "cannot be read") {
		t.Errorf("after the repair:\n%s", text)
	}
}
