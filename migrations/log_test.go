package migrations_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"upcall/internal/dbtest"
	"upcall/internal/testing/wait"
	"upcall/migrations"
)

// before returns a database as the version before the log left it, with two months of events.
func before(t *testing.T) (url string, conn *pgx.Conn) {
	t.Helper()
	url = dbtest.Empty(t)
	if err := migrations.Up(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	if err := migrations.Down(t.Context(), url, int(migrations.Latest())-7); err != nil {
		t.Fatal(err)
	}
	conn = connect(t, url)
	for _, month := range []string{"2026_10", "2026_11"} {
		from := strings.ReplaceAll(month, "_", "-") + "-01 00:00+00"
		execute(t, conn, fmt.Sprintf(`
			CREATE TABLE upcall.upload_events_%[1]s (LIKE upcall.upload_events INCLUDING ALL);
			ALTER TABLE upcall.upload_events ATTACH PARTITION upcall.upload_events_%[1]s
				FOR VALUES FROM ('%[2]s') TO (timestamptz '%[2]s' AT TIME ZONE 'UTC' + interval '1 month')`, month, from))
		execute(t, conn, fmt.Sprintf(`INSERT INTO upcall.upload_events (id, received_at, source)
			SELECT gen_random_uuid(), timestamptz '%s' + n * interval '1 minute', 'callback' FROM generate_series(1, 1000) n`, from))
	}
	return url, conn
}

func value[T any](t *testing.T, conn *pgx.Conn, sql string) (v T) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), sql).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

const wholeIndex = `SELECT count(*) = 1 + (SELECT count(*) FROM pg_inherits WHERE inhparent = 'upcall.upload_events'::regclass)
	AND bool_and(indisvalid) FROM pg_index
	WHERE indexrelid = 'upcall.upload_events_log'::regclass
		OR indexrelid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'upcall.upload_events_log'::regclass)`

// TestLogOnExistingEvents: the column comes without rewriting the table, and the index in
// pieces, with a line about each.
func TestLogOnExistingEvents(t *testing.T) {
	t.Parallel()
	url, conn := before(t)
	const files = `SELECT string_agg(pg_relation_filenode(inhrelid)::text, ' ' ORDER BY inhrelid) FROM pg_inherits
		WHERE inhparent = 'upcall.upload_events'::regclass`
	old := value[string](t, conn, files)
	var lines []string
	if err := migrations.UpReporting(t.Context(), url, func(line string) { lines = append(lines, line) }); err != nil {
		t.Fatal(err)
	}
	if now := value[string](t, conn, files); now != old {
		t.Errorf("the table was rewritten: its files were %s, and are %s", old, now)
	}
	if !value[bool](t, conn, wholeIndex) {
		t.Error("the index is not complete")
	}
	if n := value[int](t, conn, "SELECT count(*) FROM upcall.upload_events WHERE recorded_xid IS NOT NULL"); n != 0 {
		t.Errorf("%d old rows have a recorded_xid", n)
	}
	if !value[bool](t, conn, "SELECT null_until = (SELECT max(received_at) FROM upcall.upload_events) FROM upcall.feed_log") {
		t.Error("feed_log does not say where rows without a recorded_xid end")
	}
	execute(t, conn, "INSERT INTO upcall.upload_events (id, received_at, source) VALUES (gen_random_uuid(), '2026-11-20', 'callback')")
	if n := value[int](t, conn, "SELECT count(*) FROM upcall.upload_events WHERE recorded_xid::text = xmin::text"); n != 1 {
		t.Errorf("%d new rows have the recorded_xid of their transaction, want 1", n)
	}
	text := strings.Join(lines, "\n")
	for _, want := range []string{"making the index of upload_events_2026_11 (1 of 2)", "made the index of upload_events_2026_10"} {
		if !strings.Contains(text, want) {
			t.Errorf("no line %q in\n%s", want, text)
		}
	}
}

// TestLogIndexIsResumed continues after a run that was killed while it made an index, and one
// that was killed before it attached what it had made.
func TestLogIndexIsResumed(t *testing.T) {
	t.Parallel()
	url, conn := before(t)
	if err := migrations.Up(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	execute(t, conn, "DROP INDEX upcall.upload_events_log") // as the numbered file leaves it
	execute(t, conn, `CREATE INDEX upload_events_log ON ONLY upcall.upload_events (recorded_xid, id) WHERE recorded_xid IS NOT NULL`)
	execute(t, conn, `CREATE INDEX upload_events_2026_11_log ON upcall.upload_events_2026_11 (recorded_xid, id)
		WHERE recorded_xid IS NOT NULL`)
	execute(t, conn, `
		CREATE TABLE upcall.upload_events_2026_12 (LIKE upcall.upload_events INCLUDING ALL);
		ALTER TABLE upcall.upload_events ATTACH PARTITION upcall.upload_events_2026_12
			FOR VALUES FROM ('2026-12-01 00:00+00') TO ('2027-01-01 00:00+00')`) // as a receiver makes it meanwhile
	made := value[uint32](t, conn, "SELECT 'upcall.upload_events_2026_11_log'::regclass::oid")

	// A transaction that writes keeps CREATE INDEX CONCURRENTLY waiting.
	writer := connect(t, url)
	execute(t, writer, "BEGIN; LOCK TABLE upcall.upload_events_2026_10 IN ROW EXCLUSIVE MODE")
	done := make(chan error, 1)
	go func() { done <- migrations.Up(t.Context(), url) }()
	const killed = `SELECT count(pg_terminate_backend(pid)) = 1 FROM pg_stat_activity
		WHERE datname = current_database() AND query LIKE 'CREATE INDEX CONCURRENTLY%' AND wait_event_type = 'Lock'`
	wait.Until(t, "the index waits for the writer", func() bool { return value[bool](t, conn, killed) })
	if err := <-done; err == nil || !strings.Contains(err.Error(), "upload_events_2026_10") {
		t.Errorf("got %v, want an error that names the partition", err)
	}
	if value[bool](t, conn, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'upcall.upload_events_2026_10_log'::regclass") {
		t.Fatal("the index is valid: this tests nothing")
	}
	execute(t, writer, "COMMIT")

	var lines []string
	if err := migrations.UpReporting(t.Context(), url, func(line string) { lines = append(lines, line) }); err != nil {
		t.Fatal(err)
	}
	if !value[bool](t, conn, wholeIndex) {
		t.Errorf("the index is not complete:\n%s", strings.Join(lines, "\n"))
	}
	if text := strings.Join(lines, "\n"); strings.Contains(text, "2026_12") {
		t.Errorf("the new partition had no index:\n%s", text)
	}
	if value[uint32](t, conn, "SELECT 'upcall.upload_events_2026_11_log'::regclass::oid") != made {
		t.Error("the valid index was made again")
	}
	lines = nil
	if err := migrations.UpReporting(t.Context(), url, func(line string) { lines = append(lines, line) }); err != nil || len(lines) > 0 {
		t.Errorf("nothing is left to do: got %v, and did %q", err, lines)
	}
}

// TestMigrationHoldsNoOneUp: while a long reader keeps the table in use, each try blocks those
// that record for a second at the most, and the migration is made when the reader has ended.
func TestMigrationHoldsNoOneUp(t *testing.T) {
	t.Parallel()
	url, conn := before(t)
	reader := connect(t, url)
	execute(t, reader, "BEGIN; LOCK TABLE upcall.upload_events IN ACCESS SHARE MODE")
	done := make(chan error, 1)
	go func() { done <- migrations.Up(t.Context(), url) }()
	longest, inserts := time.Duration(0), 0
	for begun := time.Now(); time.Since(begun) < 3*time.Second; inserts++ {
		at := time.Now()
		execute(t, conn, "INSERT INTO upcall.upload_events (id, received_at, source) VALUES (gen_random_uuid(), '2026-11-20', 'callback')")
		longest = max(longest, time.Since(at))
	}
	t.Logf("%d inserts, the longest took %s", inserts, longest)
	if longest < 500*time.Millisecond || longest > 2500*time.Millisecond {
		t.Errorf("the longest insert took %s, want about a second", longest)
	}
	execute(t, reader, "COMMIT")
	if err := <-done; err != nil {
		t.Error(err)
	}
	wantState(t, url, latest)
	if n := value[int](t, conn, "SELECT count(*) FROM upcall.upload_events WHERE recorded_xid IS NULL"); n != 2000+inserts {
		t.Errorf("%d rows come first, want %d", n, 2000+inserts)
	}
}
