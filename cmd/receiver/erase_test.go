package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"upcall/internal/callbackspec"
	"upcall/internal/cli"
	"upcall/internal/dbtest"
	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/spool"
	"upcall/internal/testing/clitest"
	"upcall/internal/testing/wait"
)

// Texts that are nowhere else.
const theirName, theirAddress = "erin-71b0c2", "203.0.113.177"

// spoolTheirs puts callbacks of a user, received just now, into a spool: one that is a dead letter if
// so, and one that waits, to an object of that key.
func spoolTheirs(t *testing.T, dir, key string, dead bool) {
	t.Helper()
	queue, err := spool.Open(t.Context(), spool.Config{Dir: dir, MinFreeBytes: -1, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	put := func() {
		t.Helper()
		_, err := queue.Put(t.Context(), &event.Event{ID: uuid.New(), ReceivedAt: time.Now(), Callback: callbackspec.Callback{
			Bucket: "demo", Object: key, ClientIP: netip.MustParseAddr(theirAddress),
			Vars: map[string]json.RawMessage{"uid": json.RawMessage(`"` + theirName + `"`)}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	if dead {
		put()
		refuse := func(context.Context, *event.Event) (bool, error) { return false, event.ErrUnstorable }
		if _, err := queue.Move(t.Context(), refuse, 1); err != nil {
			t.Fatal(err)
		}
	}
	put()
	if err := queue.Close(); err != nil {
		t.Fatal(err)
	}
}

// remains returns where their data is: in a dump of the database, or in a file of the spool.
func remains(t *testing.T, url, dir string) (found []string) {
	t.Helper()
	look := func(where string, content []byte) {
		for _, text := range []string{theirName, theirAddress} {
			if bytes.Contains(content, []byte(text)) {
				found = append(found, text+" in "+where)
			}
		}
	}
	dump, err := exec.Command("pg_dump", "--dbname", url, "--schema", "upcall").Output()
	if err != nil || !bytes.Contains(dump, []byte("upload_events")) {
		t.Fatalf("pg_dump: %v", err)
	}
	look("the database", dump)
	files, err := filepath.Glob(filepath.Join(dir, "spool*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no spool: %v", err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		look(filepath.Base(file), content)
	}
	return found
}

// TestErase erases a user's data from the database and the spool of a running receiver, and of one
// that is started later.
func TestErase(t *testing.T) {
	t.Parallel()
	url, dir := dbtest.URL(t), t.TempDir()
	pool := dbtest.Open(t, url, eventstore.Open)
	spoolTheirs(t, dir, "first.jpg", true)
	env := clitest.Env{"UPCALL_DATABASE_URL": url, "UPCALL_SPOOL_DIR": dir, "UPCALL_TOKEN": "off", "UPCALL_SPOOL_MIN_FREE_BYTES": "0"}
	serve := func(objects int) *clitest.Running {
		t.Helper()
		running := program.Start(t, env, "serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")
		wait.Until(t, "the spool is drained, and counted", func() bool {
			var n int
			err := pool.QueryRow(t.Context(), "SELECT count(*) FROM upcall.rollup_objects").Scan(&n)
			return err == nil && n == objects
		})
		return running
	}
	running := serve(1)
	if found := remains(t, url, dir); len(found) != 4 {
		t.Fatalf("before: %v", found)
	}
	// Where consumers are, and what they have counted, is in none of what is erased.
	const counted = `SELECT (SELECT string_agg(name || ' ' || coalesce(recorded_xid::text, '') || ' ' || id, ',' ORDER BY name)
		FROM upcall.feed_consumers) || (SELECT string_agg((to_jsonb(h) - 'generation')::text, ',' ORDER BY hour, mime_type) FROM upcall.rollup_hourly h)`
	state := func() (s string) {
		t.Helper()
		if err := pool.QueryRow(t.Context(), counted).Scan(&s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	before := state()
	var erased eventstore.Erased
	if err := json.Unmarshal([]byte(program.Output(t, env, "erase", "--var", "uid="+theirName, "--format", "json")), &erased); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(eventstore.Erased{Events: 1, Objects: 1}, erased); diff != "" {
		t.Error(diff)
	}
	wait.Until(t, "the running receiver erases its spool", func() bool { return len(remains(t, url, dir)) == 0 })
	if diff := cmp.Diff(before, state()); diff != "" {
		t.Errorf("consumers have run again: %s", diff)
	}
	if err := running.Stop(); err != nil {
		t.Fatal(err)
	}
	// A spool that was away meanwhile: it comes back as it was before the request.
	spoolTheirs(t, dir, "second.jpg", false)
	if _, err := pool.Exec(t.Context(), "UPDATE upcall.erasures SET asked_at = now()"); err != nil {
		t.Fatal(err)
	}
	serve(2)
	wait.Until(t, "the receiver erases its spool at the start", func() bool { return len(remains(t, url, dir)) == 0 })
	program.Output(t, env, "rebuild", "rollup")
	if found := remains(t, url, dir); len(found) > 0 {
		t.Errorf("after a rebuild: %v", found)
	}
	var rows int
	const emptied = `SELECT count(*) FROM upcall.rollup_objects o JOIN upcall.rollup_generations g USING (generation)
		JOIN upcall.upload_events e ON e.id = o.event_id
		WHERE stage = 'current' AND o.vars = '{}' AND o.client_ip IS NULL AND e.vars = '{}' AND e.client_ip IS NULL`
	if err := pool.QueryRow(t.Context(), emptied).Scan(&rows); err != nil || rows != 2 {
		t.Errorf("%d objects are erased, %v", rows, err)
	}
	if text := program.Output(t, env, "erase", "--var", "uid="+theirName); !strings.HasPrefix(text, "erased: 0 events, 0 objects") {
		t.Errorf("once more: %s", text)
	}
}

// TestDrainErases drains a spool without a receiver.
func TestDrainErases(t *testing.T) {
	t.Parallel()
	url, dir := dbtest.URL(t), t.TempDir()
	env := clitest.Env{"UPCALL_DATABASE_URL": url, "UPCALL_SPOOL_DIR": dir}
	spoolTheirs(t, dir, "first.jpg", true)
	program.Output(t, env, "erase", "--var", "uid="+theirName)
	if text := program.Output(t, env, "spool", "drain"); text != "1 moved, 0 waiting, 1 dead\n" {
		t.Errorf("drain: %s", text)
	}
	if found := remains(t, url, dir); len(found) > 0 {
		t.Errorf("it is still there: %v", found)
	}
}

// TestEraseRefused checks that each mistake is one line that names the flag, and erases nothing.
func TestEraseRefused(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t)
	env := clitest.Env{"UPCALL_DATABASE_URL": url}
	for _, tt := range []struct{ args, want string }{
		{"", "--var"}, {"--var uid=42 --upload 5c3d9175-3333-4444-8888-5c3d91755c3d", "--var"}, {"--var uid", "--var"}, {"--var =42", "--var"},
		{"--var uid=", "--var"}, {"--var x:uid=42", "--var"}, {"--upload 42", "--upload"}, {"uid=42", "uid=42"}, {"--format yaml --var a=b", "--format"},
	} {
		stdout, _, err := program.Execute(t, env, append([]string{"erase"}, strings.Fields(tt.args)...)...)
		if !errors.Is(err, cli.ErrUsage) || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") || stdout != "" {
			t.Errorf("erase %s: printed %q, %v", tt.args, stdout, err)
		}
	}
	// One that may do most of it, but not all.
	modest := dbtest.Role(t, url, "GRANT USAGE ON SCHEMA upcall TO ROLE", "GRANT SELECT ON ALL TABLES IN SCHEMA upcall TO ROLE",
		"GRANT INSERT, UPDATE, DELETE ON upcall.erasures, upcall.upload_events, upcall.refused_callbacks, upcall.feed_consumers TO ROLE")
	err := program.Error(t, clitest.Env{"UPCALL_DATABASE_URL": modest}, "erase", "--var", "uid=42")
	_, grant, _ := strings.Cut(err.Error(), "let a superuser run: ")
	if !errors.Is(err, eventstore.ErrMistake) || !strings.HasPrefix(grant, "GRANT ") || strings.Contains(err.Error(), "\n") {
		t.Errorf("with a role that may not: %v", err)
	}
	pool := dbtest.Open(t, url, eventstore.Open)
	var noted int
	if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM upcall.erasures").Scan(&noted); err != nil || noted != 0 {
		t.Errorf("%d requests are noted, %v", noted, err)
	}
	// Run what it says.
	dbtest.Execute(t, url, grant)
	text := program.Output(t, clitest.Env{"UPCALL_DATABASE_URL": modest}, "erase", "--var", "uid=42")
	if !strings.HasPrefix(text, "erased: 0") {
		t.Errorf("with a role that may: %s", text)
	}
}
