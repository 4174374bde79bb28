package migrations_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"upcall/internal/dbtest"
	"upcall/internal/testing/wait"
	"upcall/migrations"
)

// Versions of three views. high reads low.
const (
	lowA  = "CREATE OR REPLACE VIEW upcall.low AS SELECT 1 AS a, 'x'::text AS b"
	lowB  = "CREATE OR REPLACE VIEW upcall.low AS SELECT 1 AS a, 'x'::text AS b, 2 AS c" // one column more
	lowC  = "CREATE OR REPLACE VIEW upcall.low AS SELECT 1 AS a, 3 AS middle, 'x'::text AS b"
	lowD  = "CREATE OR REPLACE VIEW upcall.low AS SELECT 1::bigint AS a, 'x'::text AS b"
	lowE  = "CREATE OR REPLACE VIEW upcall.low AS SELECT 'x'::text AS b" // one column less
	high  = "CREATE OR REPLACE VIEW upcall.high AS SELECT b FROM upcall.low; COMMENT ON COLUMN upcall.high.b IS 'A comment.'"
	other = "CREATE OR REPLACE VIEW upcall.other AS SELECT 7 AS n"
)

// withViews returns a database with low, high and other, and a connection to it.
func withViews(t *testing.T) (url string, conn *pgx.Conn) {
	t.Helper()
	url = dbtest.URL(t)
	if err := migrations.UpWith(t.Context(), url, 101, "low", lowA, "high", high, "other", other); err != nil {
		t.Fatal(err)
	}
	return url, connect(t, url)
}

func lines(t *testing.T, conn *pgx.Conn, sql string, args ...any) []string {
	t.Helper()
	rows, err := conn.Query(t.Context(), sql, args...)
	if err != nil {
		t.Fatal(err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func want(t *testing.T, conn *pgx.Conn, what, sql string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, lines(t, conn, sql)); diff != "" {
		t.Errorf("%s: %s", what, diff)
	}
}

const (
	columnsOfLow = `SELECT attname || ' ' || format_type(atttypid, atttypmod) FROM pg_attribute
		WHERE attrelid = 'upcall.low'::regclass ORDER BY attnum`
	oids = `SELECT relname || ' ' || oid FROM pg_class WHERE relnamespace = 'upcall'::regnamespace AND relkind = 'v'
		AND relname IN ('high', 'low', 'other') ORDER BY 1`
)

// wantPostgres checks that an error wraps ErrViews, is one line, and has PostgreSQL's code and the text.
func wantPostgres(t *testing.T, err error, code, text string) {
	t.Helper()
	var pgErr *pgconn.PgError
	if !errors.Is(err, migrations.ErrViews) || !errors.As(err, &pgErr) || pgErr.Code != code ||
		!strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v, want ErrViews with code %s and %q in one line", err, code, text)
	}
}

func TestViewsChange(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		low     string
		columns []string
		remade  bool
	}{
		"unchanged":              {lowA, []string{"a integer", "b text"}, false},
		"a column at the end":    {lowB, []string{"a integer", "b text", "c integer"}, false},
		"a column in the middle": {lowC, []string{"a integer", "middle integer", "b text"}, true},
		"another type":           {lowD, []string{"a bigint", "b text"}, true},
		"one column less":        {lowE, []string{"b text"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, conn := withViews(t)
			// Someone's view does not matter if the view it reads need not be dropped.
			execute(t, conn, "CREATE VIEW public.mine AS SELECT n FROM upcall.other")
			before := lines(t, conn, oids)
			for range 2 {
				if err := migrations.UpWith(t.Context(), url, 102, "low", tt.low, "high", high, "other", other); err != nil {
					t.Fatal(err)
				}
				want(t, conn, "columns", columnsOfLow, tt.columns...)
			}
			after := lines(t, conn, oids) // high, low, other
			for i, remade := range []bool{tt.remade, tt.remade, false} {
				if (before[i] != after[i]) != remade {
					t.Errorf("%s is now %s; want it recreated: %t", before[i], after[i], remade)
				}
			}
			want(t, conn, "comment", "SELECT col_description('upcall.high'::regclass, 1)", "A comment.")
			want(t, conn, "rows", "SELECT b FROM upcall.high", "x")
		})
	}
}

func TestDroppedViewComesBack(t *testing.T) {
	t.Parallel()
	url, conn := withViews(t)
	execute(t, conn, "DROP VIEW upcall.high")
	if err := migrations.UpWith(t.Context(), url, 101, "low", lowA, "high", high, "other", other); err != nil {
		t.Fatal(err)
	}
	want(t, conn, "a view that someone dropped", "SELECT b FROM upcall.high", "x")
}

func TestViewsOfOthersStay(t *testing.T) {
	t.Parallel()
	url, conn := withViews(t)
	execute(t, conn, "CREATE VIEW public.mine AS SELECT b FROM upcall.high")
	execute(t, conn, "CREATE MATERIALIZED VIEW public.too AS SELECT a FROM upcall.low")
	before := lines(t, conn, oids)
	grown := "CREATE OR REPLACE VIEW upcall.other AS SELECT 7 AS n, 8 AS m"
	err := migrations.UpWith(t.Context(), url, 102, "other", grown, "low", lowD, "high", high)
	wantPostgres(t, err, "2BP01", "view public.mine depends on view upcall.high")
	wantPostgres(t, err, "2BP01", "materialized view public.too depends on view upcall.low")
	if diff := cmp.Diff(before, lines(t, conn, oids)); diff != "" {
		t.Error(diff)
	}
	want(t, conn, "all or nothing", "SELECT count(*)::text FROM pg_attribute WHERE attrelid = 'upcall.other'::regclass", "1")
	if err := migrations.Check(t.Context(), conn); err != nil {
		t.Errorf("the program cannot work: %v", err)
	}
	execute(t, conn, "CREATE VIEW public.ours AS SELECT status FROM upcall.upload_status")
	wantPostgres(t, migrations.Down(t.Context(), url, 1), "2BP01", "view public.ours depends on view upcall.upload_status")
	wantState(t, url, latest)

	execute(t, conn, "DROP VIEW public.mine, public.ours; DROP MATERIALIZED VIEW public.too")
	if err := migrations.UpWith(t.Context(), url, 102, "low", lowD, "high", high); err != nil {
		t.Error(err)
	}
}

func TestRightsOnViewsStay(t *testing.T) {
	t.Parallel()
	url, conn := withViews(t)
	role := func(suffix string) string {
		name := strings.TrimPrefix(conn.Config().Database, "upcall_") + "_" + suffix // unique among tests
		execute(t, conn, "CREATE ROLE "+name)
		t.Cleanup(func() {
			drop := "REASSIGN OWNED BY " + name + " TO CURRENT_USER; DROP OWNED BY " + name + "; DROP ROLE " + name
			if _, err := conn.Exec(context.Background(), drop); err != nil {
				t.Error(err)
			}
		})
		return name
	}
	// Roles are made after connect, so that their cleanups run before the connection closes.
	owner, reader, column := role("owner"), role("reader"), role("column")
	execute(t, conn, "GRANT ALL ON SCHEMA upcall TO "+owner)
	execute(t, conn, "ALTER VIEW upcall.low OWNER TO "+owner)
	execute(t, conn, "GRANT SELECT ON upcall.low TO "+reader+" WITH GRANT OPTION; GRANT SELECT ON upcall.high TO PUBLIC")
	execute(t, conn, "GRANT SELECT (a), UPDATE (b) ON upcall.low TO "+column)
	execute(t, conn, "ALTER DEFAULT PRIVILEGES IN SCHEMA upcall GRANT SELECT ON TABLES TO "+column) // for new views only
	acl := `SELECT coalesce(relacl::text, '') || ' ' || relowner::regrole FROM pg_class WHERE relname IN ('low', 'high') ORDER BY relname`
	columnACL := `SELECT attname || attacl::text FROM pg_attribute 
		WHERE attrelid = 'upcall.low'::regclass AND attacl IS NOT NULL ORDER BY 1`
	before, columnsBefore := lines(t, conn, acl), lines(t, conn, columnACL)
	if len(columnsBefore) != 2 {
		t.Fatal(columnsBefore)
	}
	for i, low := range []string{lowC, lowD} {
		if err := migrations.UpWith(t.Context(), url, 102+i, "low", low, "high", high); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, lines(t, conn, acl)); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(columnsBefore, lines(t, conn, columnACL)); diff != "" {
			t.Error(diff)
		}
	}
	if err := migrations.UpWith(t.Context(), url, 104, "low", lowE, "high", high); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(columnsBefore[1:], lines(t, conn, columnACL)); diff != "" {
		t.Errorf("without the column a: %s", diff)
	}
}

// TestViewsInUse changes views during a long query.
func TestViewsInUse(t *testing.T) {
	t.Parallel()
	url, conn := withViews(t)
	reader := connect(t, url)
	execute(t, reader, "BEGIN")
	execute(t, reader, "SELECT FROM upcall.high")
	wantPostgres(t, migrations.UpWith(t.Context(), url, 102, "low", lowD, "high", high), "55P03", "run this again later")

	change := func(ctx context.Context) <-chan error {
		done := make(chan error, 1)
		go func() { done <- migrations.UpWith(ctx, url, 102, "low", lowD, "high", high) }()
		wait.Until(t, "the change waits for a view", func() bool {
			return len(lines(t, conn, `SELECT 'x' FROM pg_locks l JOIN pg_database d ON d.oid = l.database
				WHERE NOT l.granted AND d.datname = current_database()`)) > 0
		})
		return done
	}
	ctx, cancel := context.WithCancel(t.Context())
	interrupted := change(ctx)
	cancel()
	if err := <-interrupted; !errors.Is(err, context.Canceled) || !errors.Is(err, migrations.ErrViews) {
		t.Errorf("got %v, want ErrViews and Canceled", err)
	}

	done := change(t.Context())
	// Later queries wait at most a second, and the change happens after the long query.
	execute(t, conn, "SET statement_timeout = '30s'; SELECT FROM upcall.high")
	execute(t, reader, "COMMIT")
	if err := <-done; err != nil {
		t.Error(err)
	}
	want(t, conn, "columns", columnsOfLow, "a bigint", "b text")
}

// TestNewerViewsStay starts a program with an older edition, and one with an older schema.
func TestNewerViewsStay(t *testing.T) {
	t.Parallel()
	url, conn := withViews(t)
	before := lines(t, conn, oids)
	if err := migrations.UpWith(t.Context(), url, 100, "low", lowD); err != nil {
		t.Error(err)
	}
	if err := migrations.Up(t.Context(), url); err != nil { // the current edition is below 100
		t.Error(err)
	}
	execute(t, conn, "UPDATE upcall.schema_migrations SET version = 1000")
	if err := migrations.UpWith(t.Context(), url, 200, "low", lowD); err != nil {
		t.Error(err)
	}
	if err := migrations.Down(t.Context(), url, 1); !errors.Is(err, migrations.ErrTooNew) {
		t.Errorf("got %v, want ErrTooNew", err)
	}
	if diff := cmp.Diff(before, lines(t, conn, oids)); diff != "" {
		t.Error(diff)
	}
}

// TestOlderViewsAfterDown rolls back with a newer program, and starts an older one.
func TestOlderViewsAfterDown(t *testing.T) {
	t.Parallel()
	url, conn := withViews(t)
	if err := migrations.Forget(t.Context(), conn, "low", lowA, "high", high, "other", other); err != nil {
		t.Fatal(err)
	}
	if err := migrations.UpWith(t.Context(), url, 100, "low", lowE); err != nil {
		t.Error(err)
	}
	want(t, conn, "columns of the older edition", columnsOfLow, "b text")
}

func TestViewErrors(t *testing.T) {
	t.Parallel()
	url, conn := withViews(t)
	before := lines(t, conn, oids)
	bad := "CREATE OR REPLACE VIEW upcall.high AS SELECT nothing FROM upcall.low"
	err := migrations.UpWith(t.Context(), url, 102, "low", lowD, "high", bad)
	wantPostgres(t, err, "42703", "make view high: ")
	bad = "CREATE OR REPLACE VIEW upcall.upload_events AS SELECT 1 AS a" // that is a table
	err = migrations.UpWith(t.Context(), url, 102, "low", lowD, "upload_events", bad)
	wantPostgres(t, err, "42809", `lock view "upcall"."upload_events": `)
	if diff := cmp.Diff(before, lines(t, conn, oids)); diff != "" {
		t.Errorf("all or nothing: %s", diff)
	}
	wantState(t, url, latest)
}

// TestTwoSetsAtOnce starts programs of several editions at the same time.
func TestTwoSetsAtOnce(t *testing.T) {
	t.Parallel()
	url := dbtest.Empty(t)
	var group sync.WaitGroup
	for i, low := range []string{lowA, lowB, lowC, lowD} {
		for range 3 {
			group.Go(func() {
				if err := migrations.UpWith(t.Context(), url, 101+i, "low", low, "high", high); err != nil {
					t.Error(err)
				}
			})
		}
	}
	group.Wait()
	want(t, connect(t, url), "columns of the newest", columnsOfLow, "a bigint", "b text")
}

// everything describes the schema: all columns, and the comments and definitions of views.
// Comments of tables are left out because the down file of 0003 does not restore them.
const everything = `
	SELECT c.relkind::text || ' ' || c.relname || ' ' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
		|| CASE c.relkind WHEN 'v' THEN
			concat_ws(E'\n', '', col_description(c.oid, a.attnum), obj_description(c.oid, 'pg_class'), pg_get_viewdef(c.oid)) ELSE '' END
	FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
	WHERE c.relnamespace = 'upcall'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'i', 'I') AND c.relname NOT LIKE 'schema_migrations%'
		AND a.attnum > 0 AND NOT a.attisdropped
	ORDER BY c.relname COLLATE "C", a.attname COLLATE "C"`

// TestDownIsAsBefore compares the schema after Down to each version with what the numbered
// files alone make, and checks the rights on a view. Down to a version whose views are not in
// the numbered files leaves none: the program of that version makes its own.
func TestDownIsAsBefore(t *testing.T) {
	t.Parallel()
	ups, err := filepath.Glob("*.up.sql")
	if err != nil {
		t.Fatal(err)
	}
	byHand := connect(t, dbtest.Empty(t))
	execute(t, byHand, "CREATE SCHEMA upcall")
	for version := range ups {
		if version > 0 {
			text, err := os.ReadFile(ups[version-1])
			if err != nil {
				t.Fatal(err)
			}
			execute(t, byHand, string(text))
		}
		url := dbtest.URL(t)
		conn := connect(t, url)
		execute(t, conn, "GRANT SELECT ON upcall.upload_funnel TO PUBLIC")
		if err := migrations.Down(t.Context(), url, len(ups)-version); err != nil {
			t.Fatal(err)
		}
		wantSchema := lines(t, byHand, everything)
		if version >= migrations.ViewsSince && version < len(ups) {
			wantSchema = slices.DeleteFunc(wantSchema, func(line string) bool { return strings.HasPrefix(line, "v ") })
		}
		if diff := cmp.Diff(wantSchema, lines(t, conn, everything)); diff != "" {
			t.Errorf("at version %d: %s", version, diff)
		}
		public := "SELECT 'yes' FROM pg_class, aclexplode(relacl) WHERE relname = 'upload_funnel' AND grantee = 0"
		rights := []string{} // lost with the views
		if len(lines(t, conn, "SELECT 'view' FROM pg_views WHERE schemaname = 'upcall'")) > 0 {
			rights = []string{"yes"}
		}
		want(t, conn, "rights", public, rights...)
		if err := migrations.Up(t.Context(), url); err != nil {
			t.Fatal(err)
		}
		want(t, conn, "rights", public, rights...)
		if diff := cmp.Diff(lines(t, connect(t, dbtest.URL(t)), everything), lines(t, conn, everything)); diff != "" {
			t.Errorf("up again from version %d: %s", version, diff)
		}
	}
}
