package migrations_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/testing/wait"
	"upcall/migrations"
)

func addIndex(t *testing.T, url, variable string) migrations.VariableIndex {
	t.Helper()
	got, err := migrations.AddVariableIndex(t.Context(), url, variable, migrations.Report{Line: func(line string) { t.Log(line) }})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// months returns a database with partitions around November 2026 and some events.
func months(t *testing.T) (url string, conn *pgx.Conn) {
	t.Helper()
	url = dbtest.URL(t)
	ensureMonths(t, url, 2026)
	conn = connect(t, url)
	execute(t, conn, `INSERT INTO upcall.upload_events (id, received_at, source, vars)
		SELECT gen_random_uuid(), timestamptz '2026-10-01 00:00+00' + n * interval '1 minute', 'callback',
			jsonb_build_object('uid', (n % 10000)::text, 'tenant', 'one')
		FROM generate_series(1, 60000) n`)
	return url, conn
}

// ensureMonths makes the partitions around November of a year.
func ensureMonths(t *testing.T, url string, year int) {
	t.Helper()
	pool := dbtest.Open(t, url, eventstore.Open)
	if err := eventstore.EnsurePartitions(t.Context(), pool, time.Date(year, 11, 15, 0, 0, 0, 0, time.UTC)); err != nil {
		t.Fatal(err)
	}
}

func insertVars(ctx context.Context, conn *pgx.Conn, vars map[string]any) error {
	_, err := conn.Exec(ctx, "INSERT INTO upcall.upload_events (id, received_at, source, vars) "+
		"VALUES (gen_random_uuid(), '2026-11-20', 'callback', $1)", vars)
	return err
}

func plan(t *testing.T, conn *pgx.Conn, query string) string {
	t.Helper()
	rows, err := conn.Query(t.Context(), "EXPLAIN "+query, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

var few = regexp.MustCompile(`Scan on upload_events_2026_10 .* rows=\d `)

// TestVariableIndexIsUsed: the plain comparison uses it, on the table and through the view of
// uploads, on every partition and on those that come later.
func TestVariableIndexIsUsed(t *testing.T) {
	t.Parallel()
	url, conn := months(t)
	got := addIndex(t, url, "uid")
	if got.Variable != "uid" || got.Name != "upload_events_var_uid" || got.Partitions != 4 || got.Missing != 0 || got.Bytes < 1e6 {
		t.Errorf("made %+v", got)
	}
	ensureMonths(t, url, 2027)
	all, err := migrations.VariableIndexes(t.Context(), url)
	if err != nil || len(all) != 1 || all[0].Partitions != 8 || all[0].Missing != 0 {
		t.Errorf("with new partitions it is %+v, %v", all, err)
	}
	execute(t, conn, `INSERT INTO upcall.upload_events (id, received_at, source, vars)
		SELECT gen_random_uuid(), timestamptz '2027-11-01 00:00+00' + n * interval '1 minute', 'callback',
			jsonb_build_object('uid', (n % 10000)::text) FROM generate_series(1, 40000) n; ANALYZE upcall.upload_events`)
	for _, from := range []string{"upload_events", "upload_log"} {
		query := "SELECT count(*) FROM upcall." + from + " WHERE vars->>'uid' = '42'"
		// Of empty partitions, a plan may read the one page.
		text := plan(t, conn, query)
		for _, table := range []string{"upload_events_2026_10", "upload_events_2026_11", "upload_events_2027_11"} {
			if strings.Contains(text, "Seq Scan on "+table+" ") {
				t.Errorf("%s: %s is read from end to end:\n%s", from, table, text)
			}
		}
		if !few.MatchString(text) { // of 44,640 rows, and without statistics 223
			t.Errorf("%s: the plan has no statistics of the variable:\n%s", from, text)
		}
		if n := value[int](t, conn, query); n != 10 {
			t.Errorf("%s: found %d, want 10", from, n)
		}
	}
	text := plan(t, conn, "SELECT * FROM upcall.upload_log WHERE vars->>'uid' IN ('42', '43')")
	if strings.Contains(text, "Seq Scan on upload_events_2026_10") {
		t.Errorf("a list does not use it:\n%s", text)
	}
}

// TestVariableOfAnyLength: no value keeps an event from being recorded, and all are found.
func TestVariableOfAnyLength(t *testing.T) {
	t.Parallel()
	url, conn := months(t)
	addIndex(t, url, "uid")
	random := make([]byte, 0, 100_000)
	for len(random) < cap(random) {
		random = append(random, "0123456789abcdefghijklmnopqrstuvwxyz"[rand.N(36)])
	}
	long := string(random)
	values := []string{"", " ", long, long[:2705], long[:8192], long[:99_999], long[1:], strings.Repeat("x", 100_000),
		strings.Repeat("上", 30_000), "\"'\\\n\t", "上海"}
	for n := range 200 {
		values = append(values, strings.Repeat("a", n*n))
	}
	for _, v := range values {
		if err := insertVars(t.Context(), conn, map[string]any{"uid": v}); err != nil {
			t.Fatalf("%d bytes: %v", len(v), err)
		}
	}
	for name, vars := range map[string]map[string]any{
		"null": {"uid": nil}, "number": {"uid": 7.5}, "none": {}, "nested": {"uid": map[string]string{"a": long}},
	} {
		if err := insertVars(t.Context(), conn, vars); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	execute(t, conn, "SET enable_seqscan = off")
	for _, v := range append(values, "7.5") {
		var n int
		err := conn.QueryRow(t.Context(),
			"SELECT count(*) FROM upcall.upload_events WHERE received_at = '2026-11-20' AND vars->>'uid' = $1", v).Scan(&n)
		if err != nil || (n != 1 && v != "") || (v == "" && n != 2) { // "" and no "a"
			t.Errorf("a value of %d bytes is found %d times, %v", len(v), n, err)
		}
	}
}

// TestVariableOfAnyName: each name has an index of its own.
func TestVariableOfAnyName(t *testing.T) {
	t.Parallel()
	url, conn := months(t)
	names := []string{"uid", "UID", "u'id", "u''id", `u"id`, `u\id`, "用户", strings.Repeat("n", 200), strings.Repeat("n", 201),
		strings.Repeat("上", 85), "a.b-c", "x:uid", "$1", "%s", "' || '", " ", "a\nb",
		strings.Repeat("z", 24), strings.Repeat("z", 25), "s_0", "👍"}
	for i, name := range names {
		if err := insertVars(t.Context(), conn, map[string]any{name: fmt.Sprint("value ", i)}); err != nil {
			t.Fatal(err)
		}
		if got := addIndex(t, url, name); got.Variable != name || got.Missing != 0 || len(got.Name) > 63 {
			t.Errorf("%q: made %+v", name, got)
		}
	}
	ensureMonths(t, url, 2027)
	all, err := migrations.VariableIndexes(t.Context(), url)
	if err != nil || len(all) != len(names) {
		t.Fatalf("%d of %d names have an index, %v", len(all), len(names), err)
	}
	execute(t, conn, "SET enable_seqscan = off; ANALYZE upcall.upload_events")
	for i, name := range names {
		quoted := "vars->>'" + strings.ReplaceAll(name, "'", "''") + "' = 'value " + fmt.Sprint(i) + "'"
		text := plan(t, conn, "SELECT count(*) FROM upcall.upload_events WHERE received_at = '2026-11-20' AND "+quoted)
		if !strings.Contains(text, "upload_events_2026_11_var") {
			t.Errorf("%q: the index is not used:\n%s", name, text)
		}
		if n := value[int](t, conn, "SELECT count(*) FROM upcall.upload_events WHERE "+quoted); n != 1 {
			t.Errorf("%q: found %d", name, n)
		}
	}
	for _, name := range names {
		if err := migrations.RemoveVariableIndex(t.Context(), url, name, migrations.Report{Line: func(string) {}}); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	if n := value[int](t, conn, "SELECT count(*) FROM pg_indexes WHERE schemaname = 'upcall' AND indexdef LIKE '%->>%'"); n != 0 {
		t.Errorf("%d indexes are left", n)
	}
}

// TestVariableIndexIsResumed: one that was interrupted is listed as such, is used where it is
// complete, and is continued or removed.
func TestVariableIndexIsResumed(t *testing.T) {
	t.Parallel()
	for _, then := range []string{"add", "remove"} {
		t.Run(then, func(t *testing.T) {
			t.Parallel()
			url, conn := months(t)
			writer := connect(t, url)
			execute(t, writer, "BEGIN; LOCK TABLE upcall.upload_events_2026_11 IN ROW EXCLUSIVE MODE")
			done := make(chan error, 1)
			go func() {
				_, err := migrations.AddVariableIndex(t.Context(), url, "uid", migrations.Report{Line: func(string) {}})
				done <- err
			}()
			const killed = `SELECT count(pg_terminate_backend(pid)) = 1 FROM pg_stat_activity
				WHERE datname = current_database() AND query LIKE 'CREATE INDEX CONCURRENTLY%' AND wait_event_type = 'Lock'`
			wait.Until(t, "the index waits for the writer", func() bool { return value[bool](t, conn, killed) })
			if err := <-done; err == nil || !strings.Contains(err.Error(), "upload_events_2026_11") {
				t.Errorf("got %v, want an error that names the partition", err)
			}
			execute(t, writer, "COMMIT")
			if value[bool](t, conn, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'upcall.upload_events_2026_11_var_uid'::regclass") {
				t.Fatal("the index is valid: this tests nothing")
			}
			all, err := migrations.VariableIndexes(t.Context(), url)
			if err != nil || len(all) != 1 || all[0].Missing != 2 || all[0].Partitions != 4 { // 2027_01 and 2026_12 came first
				t.Errorf("listed %+v, %v", all, err)
			}
			// A month that comes now has it, and no value keeps an event from being recorded.
			ensureMonths(t, url, 2027)
			if err := insertVars(t.Context(), conn, map[string]any{"uid": strings.Repeat("long", 30_000)}); err != nil {
				t.Error(err)
			}
			want := 0
			if then == "add" {
				want = 9 // of 8 partitions, and of the table
				if got := addIndex(t, url, "uid"); got.Missing != 0 || got.Partitions != 8 {
					t.Errorf("made %+v", got)
				}
			} else if err := migrations.RemoveVariableIndex(t.Context(), url, "uid", migrations.Report{Line: func(string) {}}); err != nil {
				t.Error(err)
			}
			const of = "SELECT count(*) FROM pg_index WHERE pg_get_expr(indexprs, indrelid) LIKE '%uid%'"
			n, valid := value[int](t, conn, of), value[int](t, conn, of+" AND indisvalid")
			if n != want || valid != want {
				t.Errorf("%d indexes, %d of them valid, want %d", n, valid, want)
			}
		})
	}
}

// TestVariableIndexHoldsNoOneUp: while queries keep the table in use, making and dropping an
// index block those that record for about a second at the most, and end when the queries do.
func TestVariableIndexHoldsNoOneUp(t *testing.T) {
	t.Parallel()
	url, conn := months(t)
	quiet := migrations.Report{Line: func(string) {}}
	for name, tt := range map[string]struct {
		lock string
		work func() error
	}{
		"add": {"ROW EXCLUSIVE", func() error {
			_, err := migrations.AddVariableIndex(t.Context(), url, "uid", quiet)
			return err
		}},
		"remove": {"ACCESS SHARE", func() error {
			addIndex(t, url, "tenant")
			reader := connect(t, url)
			execute(t, reader, "BEGIN; LOCK TABLE upcall.upload_events IN ACCESS SHARE MODE")
			time.AfterFunc(6*time.Second, func() { reader.Close(context.Background()) })
			return migrations.RemoveVariableIndex(t.Context(), url, "tenant", quiet)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "add" {
				writer := connect(t, url)
				execute(t, writer, "BEGIN; LOCK TABLE upcall.upload_events IN ROW EXCLUSIVE MODE")
				time.AfterFunc(6*time.Second, func() { writer.Close(context.Background()) })
			}
			done := make(chan error, 1)
			go func() { done <- tt.work() }()
			longest, inserts := time.Duration(0), 0
			for ended := false; !ended; inserts++ {
				begun := time.Now()
				if err := insertVars(t.Context(), conn, map[string]any{"uid": "1"}); err != nil {
					t.Fatal(err)
				}
				longest = max(longest, time.Since(begun))
				select {
				case err := <-done:
					ended = true
					if err != nil {
						t.Error(err)
					}
				default:
				}
			}
			t.Logf("%d inserts, the longest took %s", inserts, longest)
			if longest < 500*time.Millisecond || longest > 3*time.Second {
				t.Errorf("the longest insert took %s, want about a second", longest)
			}
		})
	}
}

func TestVariableIndexRefused(t *testing.T) {
	t.Parallel()
	url, _ := months(t)
	quiet := migrations.Report{Line: func(string) {}}
	for _, name := range []string{"", "a\x00b", "\xff", strings.Repeat("n", 256)} {
		_, err := migrations.AddVariableIndex(t.Context(), url, name, quiet)
		for _, err := range []error{err, migrations.RemoveVariableIndex(t.Context(), url, name, quiet)} {
			if !errors.Is(err, migrations.ErrVariable) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%.20q: got %v", name, err)
			}
		}
	}
	if err := migrations.RemoveVariableIndex(t.Context(), url, "uid", quiet); !errors.Is(err, migrations.ErrNoIndex) {
		t.Errorf("got %v", err)
	}
	if _, err := migrations.AddVariableIndex(t.Context(), dbtest.Empty(t), "uid", quiet); !errors.Is(err, migrations.ErrTooOld) {
		t.Errorf("got %v", err)
	}
}
