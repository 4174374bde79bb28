package docs_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/sample"
	"upcall/migrations"
)

const queriesPage = "queries.md"

// asked matches a question, its query and its answer.
var asked = regexp.MustCompile("(?ms)^#### (\\d+\\. [^\n]*)$.*?^```sql\n(.*?)^```\n\n```text\n(.*?)^```$")

// write has the tests write what belongs on the page, instead of comparing it.
var write = os.Getenv("UPCALL_TEST_WRITE") == "1"

// rewrite replaces the page.
func rewrite(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(queriesPage, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// sampled returns a pool on the database that the answers are of.
func sampled(t *testing.T) *pgxpool.Pool {
	t.Helper()
	pool := dbtest.Pool(t, eventstore.Open)
	feed := dbtest.Beside(t, pool, eventstore.OpenFeed)
	err := sample.Fill(t.Context(), sample.Config{
		Pool: pool, Feed: feed, Events: 20_000, Seed: 1, Until: time.Date(2026, 10, 31, 16, 0, 0, 0, time.UTC), PerTransaction: 500})
	if err == nil {
		err = sample.Count(t.Context(), feed, slog.New(slog.NewTextHandler(t.Output(), nil)), func(sample.Progress) {})
	}
	if err != nil {
		t.Fatal(err)
	}
	return pool
}

// asAnalyst runs queries as analysts do.
func asAnalyst(t *testing.T, pool *pgxpool.Pool, use func(*pgx.Conn)) {
	t.Helper()
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { conn.Conn().Close(context.WithoutCancel(t.Context())); conn.Release() }()
	if _, err := conn.Exec(t.Context(), "SET ROLE "+migrations.AnalystRole+"; SET timezone = 'UTC'"); err != nil {
		t.Fatal(err)
	}
	use(conn.Conn())
}

// TestAnswers runs the queries of the page as an analyst, and compares the answers.
func TestAnswers(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(queriesPage)
	if err != nil {
		t.Fatal(err)
	}
	questions := asked.FindAllStringSubmatch(string(text), -1)
	if len(questions) != 25 {
		t.Errorf("%d questions were found, want 25", len(questions))
	}
	page := string(text)
	asAnalyst(t, sampled(t), func(conn *pgx.Conn) {
		for _, q := range questions {
			results, err := conn.PgConn().Exec(t.Context(), q[2]).ReadAll()
			if err != nil || len(results) != 1 || len(results[0].Rows) == 0 {
				t.Errorf("%s: %d results, %v, or no rows", q[1], len(results), err)
				continue
			}
			got := table(results[0])
			if diff := cmp.Diff(q[3], got); diff != "" && !write {
				t.Errorf("%s (-page +database):\n%s", q[1], diff)
			}
			page = strings.Replace(page, q[0], strings.TrimSuffix(q[0], q[3]+"```")+got+"```", 1)
		}
	})
	if write {
		rewrite(t, page)
	}
}

// table lays a result out as psql does.
func table(result *pgconn.Result) string {
	lines := [][]string{nil}
	for _, field := range result.FieldDescriptions {
		lines[0] = append(lines[0], field.Name)
	}
	for _, row := range result.Rows {
		var line []string
		for _, value := range row {
			line = append(line, string(value))
		}
		lines = append(lines, line)
	}
	widths := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, value := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(value))
		}
	}
	var b strings.Builder
	for n, line := range lines {
		for i, value := range line {
			space := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(value))
			switch oid := result.FieldDescriptions[i].DataTypeOID; {
			case n > 0 && (oid == pgtype.Int4OID || oid == pgtype.Int8OID || oid == pgtype.NumericOID || oid == pgtype.Float8OID):
				line[i] = space + value
			default:
				line[i] = value + space
			}
		}
		fmt.Fprintln(&b, strings.TrimRight(" "+strings.Join(line, " | "), " "))
		if n == 0 {
			for i, width := range widths {
				lines[0][i] = strings.Repeat("-", width+2)
			}
			fmt.Fprintln(&b, strings.Join(lines[0], "+"))
		}
	}
	return b.String()
}

// TestPruning holds the page's table of conditions: how many months each reads.
func TestPruning(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(queriesPage)
	if err != nil {
		t.Fatal(err)
	}
	pool := dbtest.Pool(t, eventstore.Open)
	for month := range 12 {
		if err := eventstore.EnsurePartitions(t.Context(), pool, time.Date(2026, time.Month(month), 1, 0, 0, 0, 0, time.UTC)); err != nil {
			t.Fatal(err)
		}
	}
	conditions := regexp.MustCompile("(?m)^\\| `(received_at[^`]*|[^`]*received_at[^`]*)` \\| (one|one or two|all) \\|$").
		FindAllStringSubmatch(string(text), -1)
	if len(conditions) != 5 {
		t.Errorf("%d conditions were found, want 5", len(conditions))
	}
	asAnalyst(t, pool, func(conn *pgx.Conn) {
		for _, c := range conditions {
			rows, err := conn.Query(t.Context(), "EXPLAIN (ANALYZE) SELECT count(*) FROM upcall.upload_log WHERE "+c[1])
			if err != nil {
				t.Fatal(err)
			}
			plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				t.Fatalf("%s: %v", c[1], err)
			}
			months := make(map[string]bool)
			for _, line := range plan {
				if strings.Contains(line, "never executed") {
					continue
				}
				if found := regexp.MustCompile(` on (upload_events_\d{4}_\d\d)`).FindStringSubmatch(line); found != nil {
					months[found[1]] = true
				}
			}
			if got := len(months); c[2] == "one" && got != 1 || c[2] == "one or two" && got > 2 || c[2] == "all" && got < 12 {
				t.Errorf("%s reads %d months, not %s:\n%s", c[1], got, c[2], strings.Join(plan, "\n"))
			}
		}
	})
}

const (
	dictionaryBegins = "-->\n" // after the comment that says how it is made
	dictionaryEnds   = "<!-- end of dictionary -->"
)

// TestDictionary holds that the page has every column of every view that analysts may read, with its
// comment.
func TestDictionary(t *testing.T) {
	t.Parallel()
	rows, err := dbtest.Pool(t, eventstore.Open).Query(t.Context(), `
		SELECT c.relname, coalesce(obj_description(c.oid, 'pg_class'), ''), a.attname, format_type(a.atttypid, NULL),
			coalesce(col_description(c.oid, a.attnum), '')
		FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
		WHERE c.relnamespace = 'upcall'::regnamespace AND has_table_privilege($1, c.oid, 'SELECT')
		ORDER BY c.relname, a.attnum`, migrations.AnalystRole)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	var view, about, column, kind, comment, last string
	if _, err := pgx.ForEachRow(rows, []any{&view, &about, &column, &kind, &comment}, func() error {
		if view != last {
			fmt.Fprintf(&b, "\n### %s\n\n%s\n\n| column | type | |\n|---|---|---|\n", view, about)
		}
		if about == "" || comment == "" {
			t.Errorf("%s or its column %s has no comment", view, column)
		}
		last = view
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", column, kind, strings.ReplaceAll(comment, "|", "\\|"))
		return nil
	}); err != nil || last == "" {
		t.Fatalf("no columns, or %v", err)
	}
	text, err := os.ReadFile(queriesPage)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), "<!-- dictionary")
	how, rest, foundHow := strings.Cut(rest, dictionaryBegins)
	got, after, foundEnd := strings.Cut(rest, dictionaryEnds)
	if !found || !foundHow || !foundEnd {
		t.Fatal("the page has no place for the dictionary")
	}
	want := b.String() + "\n"
	if write {
		rewrite(t, before+"<!-- dictionary"+how+dictionaryBegins+want+dictionaryEnds+after)
	} else if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-database +page):\n%.4000s", diff)
	}
}
