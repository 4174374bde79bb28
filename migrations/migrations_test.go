package migrations_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"upcall/internal/dbtest"
	"upcall/internal/testing/servetest"
	"upcall/migrations"
)

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func execute(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// latest is the state of an up-to-date database.
var latest = migrations.State{Version: migrations.Latest(), Latest: migrations.Latest(), Pending: []string{}}

func wantState(t *testing.T, url string, want migrations.State) {
	t.Helper()
	got, err := migrations.Status(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestFilesAreNumberedWithoutGaps(t *testing.T) {
	t.Parallel()
	ups, err := filepath.Glob("*.up.sql")
	if err != nil || len(ups) == 0 {
		t.Fatalf("no migrations: %v", err)
	}
	for i, up := range ups {
		if !strings.HasPrefix(up, fmt.Sprintf("%04d_", i+1)) {
			t.Errorf("%s is number %d", up, i+1)
		}
		if _, err := os.Stat(strings.TrimSuffix(up, ".up.sql") + ".down.sql"); err != nil {
			t.Errorf("%s has no down file: %v", up, err)
		}
	}
	if int(migrations.Latest()) != len(ups) {
		t.Errorf("Latest() = %d, want %d", migrations.Latest(), len(ups))
	}
}

func TestUpAndDown(t *testing.T) {
	t.Parallel()
	url := dbtest.Empty(t)
	conn := connect(t, url)
	all := int(migrations.Latest())
	before := migrations.State{Latest: migrations.Latest(), Pending: []string{
		"0001_upload_events", "0002_issued_uploads", "0003_refusals", "0004_callback_ids_order", "0005_views", "0006_comments",
		"0007_token_comments", "0008_log", "0009_hooks", "0010_key_roles", "0011_rollup", "0012_views",
		"0013_erasures", "0014_days", "0015_same_upload", "0016_notifications", "0017_findings",
		"0018_reconcile", "0019_lookups", "0020_forms"}}
	after := latest

	wantState(t, url, before)
	err := migrations.Check(t.Context(), conn)
	if !errors.Is(err, migrations.ErrTooOld) || !strings.Contains(err.Error(), "receiver migrate up") {
		t.Errorf("got %v, want ErrTooOld with the command to run", err)
	}
	if err := migrations.Down(t.Context(), url, 1); !errors.Is(err, migrations.ErrSteps) {
		t.Errorf("down from nothing: got %v, want ErrSteps", err)
	}
	for range 2 {
		if err := migrations.Up(t.Context(), url); err != nil {
			t.Fatal(err)
		}
		wantState(t, url, after)
		if err := migrations.Check(t.Context(), conn); err != nil {
			t.Error(err)
		}
	}
	for _, steps := range []int{-1, 0, all + 1} {
		if err := migrations.Down(t.Context(), url, steps); !errors.Is(err, migrations.ErrSteps) {
			t.Errorf("down %d: got %v, want ErrSteps", steps, err)
		}
	}
	// Down to nothing, one by one.
	for range all {
		if err := migrations.Down(t.Context(), url, 1); err != nil {
			t.Fatal(err)
		}
	}
	wantState(t, url, before)
	var left int
	if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_class
		WHERE relnamespace = 'upcall'::regnamespace AND relname NOT LIKE 'schema_migrations%'`).Scan(&left); err != nil || left != 0 {
		t.Errorf("%d relations are left, %v", left, err)
	}
	if err := migrations.Up(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	wantState(t, url, after)
}

func TestTenAtOnce(t *testing.T) {
	t.Parallel()
	url := dbtest.Empty(t)
	var group sync.WaitGroup
	for range 10 {
		group.Go(func() {
			if err := migrations.Up(t.Context(), url); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	wantState(t, url, latest)
}

func TestNewerSchemaWillDo(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t)
	conn := connect(t, url)
	execute(t, conn, "UPDATE upcall.schema_migrations SET version = 1000")
	if err := migrations.Check(t.Context(), conn); err != nil {
		t.Error(err)
	}
}

func TestDirty(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t)
	conn := connect(t, url)
	execute(t, conn, "UPDATE upcall.schema_migrations SET dirty = true")
	dirty := latest
	dirty.Dirty = true
	wantState(t, url, dirty)
	for name, err := range map[string]error{
		"Up":    migrations.Up(t.Context(), url),
		"Down":  migrations.Down(t.Context(), url, 1),
		"Check": migrations.Check(t.Context(), conn),
	} {
		if !errors.Is(err, migrations.ErrDirty) || !strings.Contains(err.Error(), "UPDATE upcall.schema_migrations SET dirty = false") {
			t.Errorf("%s: got %v, want ErrDirty with what to do", name, err)
		}
	}
}

func TestFailedMigrationLeavesNothing(t *testing.T) {
	t.Parallel()
	url := dbtest.Empty(t)
	conn := connect(t, url)
	execute(t, conn, "CREATE SCHEMA upcall")
	execute(t, conn, "CREATE TABLE upcall.callback_ids (mine int)") // in the way of the last statement
	err := migrations.Up(t.Context(), url)
	if err == nil || !strings.Contains(err.Error(), `"callback_ids" already exists`) || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v, want PostgreSQL's reason in one line", err)
	}
	if err := migrations.Up(t.Context(), url); !errors.Is(err, migrations.ErrDirty) {
		t.Errorf("got %v, want ErrDirty", err)
	}
	// The fix that the error names works.
	execute(t, conn, "DROP TABLE upcall.callback_ids")
	execute(t, conn, "DELETE FROM upcall.schema_migrations")
	if err := migrations.Up(t.Context(), url); err != nil {
		t.Error(err)
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t)
	conn := connect(t, url)

	// Behind another migration.
	holder := connect(t, url)
	execute(t, holder, fmt.Sprintf("SELECT pg_advisory_lock(%d)", migrations.LockMigrations))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := migrations.Up(ctx, url); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want DeadlineExceeded", err)
	}
	holder.Close(t.Context())

	// Behind a transaction that uses the table.
	execute(t, conn, "BEGIN")
	execute(t, conn, "LOCK TABLE upcall.upload_events IN ACCESS SHARE MODE")
	ctx, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := migrations.Down(ctx, url, int(migrations.Latest())); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want DeadlineExceeded", err)
	}
}

func TestErrorsHoldNoPassword(t *testing.T) {
	t.Parallel()
	listener := servetest.Listen(t)
	closed := listener.Addr().String()
	listener.Close()
	wrong := strings.Replace(dbtest.Empty(t), "@", "hunter2@", 1)
	for url, want := range map[string]string{
		"postgres://me:hunter2@" + closed + "/db":        "connection refused",
		"postgresql://me:hunter2@" + closed + "/db":      "connection refused",
		"host=127.0.0.1 port=1 user=me password=hunter2": "connection refused",
		wrong:                                       "28P01",
		"postgres://me:hunter2@[::1/db":             migrations.ErrURL.Error(),
		"postgres://me:hunter2%zz@host/db":          migrations.ErrURL.Error(),
		"postgres://me:hunter2@host/db?sslmode=odd": migrations.ErrURL.Error(),
		"password=hunter2 port=x":                   migrations.ErrURL.Error(),
		"hunter2":                                   migrations.ErrURL.Error(),
	} {
		_, errStatus := migrations.Status(t.Context(), url)
		for _, err := range []error{errStatus, migrations.Up(t.Context(), url), migrations.Down(t.Context(), url, 1)} {
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") ||
				strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: got %q, want %s", url, err, want)
			}
		}
	}
}

// TestEverythingIsExplained checks the comments on all tables, views and columns, except in
// golang-migrate's table of versions.
func TestEverythingIsExplained(t *testing.T) {
	t.Parallel()
	conn := connect(t, dbtest.URL(t))
	rows, err := conn.Query(t.Context(), `
		SELECT c.relname, '', obj_description(c.oid, 'pg_class')
		FROM pg_class c
		WHERE c.relnamespace = 'upcall'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm') AND c.relname <> 'schema_migrations' AND NOT c.relispartition
		UNION ALL
		SELECT c.relname, a.attname, col_description(c.oid, a.attnum)
		FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
		WHERE c.relnamespace = 'upcall'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm') AND c.relname <> 'schema_migrations' AND NOT c.relispartition
			AND a.attnum > 0 AND NOT a.attisdropped`)
	if err != nil {
		t.Fatal(err)
	}
	relations, columns := 0, 0
	var relation, column string
	var comment *string
	if _, err := pgx.ForEachRow(rows, []any{&relation, &column, &comment}, func() error {
		switch {
		case comment == nil:
			t.Errorf("%s %s has no comment", relation, column)
		case column == "":
			relations++
		case !strings.Contains(strings.ToLower(*comment), "null"):
			t.Errorf("%s.%s: its comment does not say when it is null", relation, column)
		default:
			columns++
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if relations < 8 || columns < 60 {
		t.Errorf("found only %d tables and views with %d columns", relations, columns)
	}
}
