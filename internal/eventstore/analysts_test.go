package eventstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/dbtest"
	"upcall/internal/testing/pgbouncer"
	"upcall/migrations"
)

// addAnalyst makes an analyst, who is removed at the test's end, and returns their URL.
func addAnalyst(t *testing.T, pool *pgxpool.Pool) (name, databaseURL string) {
	t.Helper()
	name = "test_" + strings.ToLower(rand.Text())
	password, err := NewAnalysts(pool).Add(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := NewAnalysts(pool).Remove(context.Background(), name); err != nil && !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
	})
	u, err := url.Parse(pool.Config().ConnString())
	if err != nil {
		t.Fatal(err)
	}
	u.User, u.RawQuery = url.UserPassword(name, password), ""
	return name, pgbouncer.Direct(u.String()) // a pooler does not know the role
}

func connectAs(t *testing.T, databaseURL string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), pgbouncer.Direct(databaseURL))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// functionsOfViews are what upload_funnel, upload_freshness and upload_status call, for which those who read them need
// the right to execute it. functionsShowNoMore checks that they show no more than views do.
var functionsOfViews = []string{"funnel_of(date)", "freshness()", "uses_of(uuid)"}

// TestAnalystsReadViewsOnly tries each table, view, sequence and function of the schema, as the role
// and as a member of it that has taken off its own limits.
func TestAnalystsReadViewsOnly(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	name, member := addAnalyst(t, pool)
	free := connectAs(t, member)
	if _, err := free.Exec(t.Context(), "SET default_transaction_read_only = off; SET statement_timeout = 0"); err != nil {
		t.Fatal(err)
	}
	conns := []*pgx.Conn{asAnalyst(t, pool), free}
	wrong, tried := wrongRights(t, pool, conns)
	for _, line := range wrong {
		t.Error(line)
	}
	for kind, least := range map[string]int{"r": 20, "p": 2, "v": 9, "S": 1, "function": len(functionsOfViews)} {
		if tried[kind] < least {
			t.Errorf("found only %d of kind %s", tried[kind], kind)
		}
	}
	for _, sql := range []string{"CREATE TABLE upcall.mine (n int)", "SET ROLE pg_read_all_data", "CREATE ROLE another",
		"ALTER ROLE " + migrations.AnalystRole + " LOGIN", "SELECT rolpassword FROM pg_authid"} {
		_, err := free.Exec(t.Context(), sql)
		if code := migrations.ServerError(err).Code; code != insufficientPrivilege && code != "22023" { // no such role before PostgreSQL 14
			t.Errorf("%s: %s: %v", name, sql, err)
		}
	}

	// What is given by mistake is found, each in its kind. Functions are everyone's unless that is revoked.
	dbtest.Execute(t, pool.Config().ConnString(), `
		CREATE TABLE upcall.planted_table (n int);
		GRANT SELECT (n) ON upcall.planted_table TO PUBLIC;
		CREATE SEQUENCE upcall.planted_sequence;
		GRANT USAGE ON SEQUENCE upcall.planted_sequence TO upcall_analyst;
		CREATE FUNCTION upcall.planted_function() RETURNS int LANGUAGE sql AS 'SELECT 1';
		CREATE FUNCTION upcall.funnel_of(text) RETURNS int LANGUAGE sql AS 'SELECT 1';
		CREATE VIEW upcall.planted_view AS SELECT 1 AS n`)
	found, _ := wrongRights(t, pool, conns)
	for _, sql := range []string{"SELECT n FROM upcall.planted_table", "nextval('upcall.planted_sequence')",
		"execute upcall.planted_function()", "execute upcall.funnel_of(text)", "SELECT * FROM upcall.planted_view"} {
		if !slices.ContainsFunc(found, func(line string) bool { return strings.Contains(line, sql) }) {
			t.Errorf("%s is not found in %q", sql, found)
		}
	}
}

// asAnalyst returns a session that has the role of analysts.
func asAnalyst(t *testing.T, pool *pgxpool.Pool) *pgx.Conn {
	t.Helper()
	conn := connectAs(t, pool.Config().ConnString())
	if _, err := conn.Exec(t.Context(), "SET ROLE "+migrations.AnalystRole); err != nil {
		t.Fatal(err)
	}
	return conn
}

// wrongRights tries everything in the schema, and returns what can be done that should not be, or
// cannot be that should, and how many of each kind there are.
func wrongRights(t *testing.T, pool *pgxpool.Pool, conns []*pgx.Conn) (wrong []string, tried map[string]int) {
	t.Helper()
	rows, err := pool.Query(t.Context(), `
		SELECT relkind::text, quote_ident(relname),
			(SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = c.oid AND attnum = 1), c.oid
		FROM pg_class c WHERE relnamespace = 'upcall'::regnamespace AND relkind NOT IN ('i', 'I', 'c')
		UNION ALL
		SELECT 'function', format('%s(%s)', proname, oidvectortypes(proargtypes)), '', oid
		FROM pg_proc WHERE pronamespace = 'upcall'::regnamespace`)
	if err != nil {
		t.Fatal(err)
	}
	var kind, name, column string
	var oid uint32
	tried = make(map[string]int)
	_, err = pgx.ForEachRow(rows, []any{&kind, &name, &column, &oid}, func() error {
		tried[kind]++
		statements := []string{
			"INSERT INTO %[1]s DEFAULT VALUES", "UPDATE %[1]s SET %[2]s = %[2]s", "DELETE FROM %[1]s", "TRUNCATE %[1]s",
			"SELECT 1 FROM %[1]s FOR UPDATE", "COMMENT ON TABLE %[1]s IS ''", "DROP TABLE %[1]s",
		}
		may := ""
		switch kind {
		case "v":
			may = "SELECT * FROM %[1]s LIMIT 1"
			statements = append(statements[:3:3], "DROP VIEW %[1]s", "SELECT 1 FROM %[1]s FOR UPDATE")
		case "S":
			statements = []string{"SELECT nextval('%[1]s')", "SELECT currval('%[1]s')", "SELECT last_value FROM %[1]s", "SELECT setval('%[1]s', 1)"}
		case "function":
			statements = nil
		default:
			statements = append(statements, "SELECT %[2]s FROM %[1]s LIMIT 1", "SELECT count(*) FROM %[1]s", "COPY %[1]s TO STDOUT")
		}
		for _, conn := range conns {
			user := conn.Config().User
			if kind == "function" {
				var executes bool
				err := conn.QueryRow(t.Context(), "SELECT has_function_privilege($1::oid, 'EXECUTE')", oid).Scan(&executes)
				if err != nil || executes != slices.Contains(functionsOfViews, name) {
					wrong = append(wrong, fmt.Sprintf("%s: execute upcall.%s: %t, %v", user, name, executes, err))
				}
			}
			for _, statement := range append(statements, may) {
				if statement == "" {
					continue
				}
				sql := strings.ReplaceAll(strings.ReplaceAll(statement, "%[1]s", "upcall."+name), "%[2]s", column)
				_, err := conn.Exec(t.Context(), sql)
				code := migrations.ServerError(err).Code
				// A view that no row can be written to is refused for that.
				refused := code == insufficientPrivilege || kind == "v" && (code == objectNotInPrerequisiteState || code == "0A000")
				if statement == may && err != nil || statement != may && !refused {
					wrong = append(wrong, fmt.Sprintf("%s: %s: %v", user, sql, err))
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return wrong, tried
}

// TestAnalystSettings checks what a session of an analyst begins with.
func TestAnalystSettings(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	_, member := addAnalyst(t, pool)
	conn := connectAs(t, member)
	got := make(map[string]string)
	for _, s := range analystSettings {
		var value string
		if err := conn.QueryRow(t.Context(), "SELECT current_setting($1)", s.name).Scan(&value); err != nil {
			t.Fatal(err)
		}
		got[s.name] = value
	}
	want := map[string]string{"default_transaction_read_only": "on", "statement_timeout": "1min",
		"idle_in_transaction_session_timeout": "1min", "jit": "off", "search_path": "upcall, public"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	var there int // search_path
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM upload_funnel").Scan(&there); err != nil {
		t.Error(err)
	}
	wrong := strings.Replace(member, conn.Config().Password, "A"+conn.Config().Password[1:]+"A", 1)
	if _, err := pgx.Connect(t.Context(), wrong); migrations.ServerError(err).Code != invalidPassword {
		t.Errorf("another password: %v", err)
	}
}

// TestAnalystPasswordIsInNoLog has the server log every statement.
func TestAnalystPasswordIsInNoLog(t *testing.T) {
	t.Parallel()
	server := dbtest.NewServer(t)
	dbtest.Execute(t, server.URL(), "ALTER SYSTEM SET log_statement = 'all'")
	dbtest.Execute(t, server.URL(), "SELECT pg_reload_conf()")
	// An older server's default, with which it would store something else than a verifier.
	dbtest.Execute(t, server.URL(), "ALTER ROLE CURRENT_USER SET password_encryption = 'md5'")
	pool := dbtest.Open(t, server.URL(), Open)
	password, err := NewAnalysts(pool).Add(t.Context(), "ann")
	if err != nil {
		t.Fatal(err)
	}
	var stored string
	if err := pool.QueryRow(t.Context(), "SELECT rolpassword FROM pg_authid WHERE rolname = 'ann'").Scan(&stored); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(stored, "SCRAM-SHA-256$4096:") || len(password) < 26 {
		t.Errorf("stored %q of a password of %d characters", stored, len(password))
	}
	log, err := os.ReadFile(filepath.Join(server.DataDir(), "postgres.log"))
	if err != nil || !strings.Contains(string(log), "CREATE ROLE") || strings.Contains(string(log), password) {
		t.Errorf("the log (%v) has the password, or not the statement:\n%s", err, log)
	}
}

// TestAnalystsAddedAndRemoved also tries what must not be taken over, or dropped.
func TestAnalystsAddedAndRemoved(t *testing.T) {
	t.Parallel()
	server := dbtest.NewServer(t)
	pool := dbtest.Open(t, server.URL(), Open)
	analysts := NewAnalysts(pool)
	execute := func(sql string) { t.Helper(); dbtest.Execute(t, server.URL(), sql) }
	execute("CREATE ROLE app LOGIN; CREATE ROLE friend LOGIN IN ROLE upcall_analyst")
	for _, name := range []string{"app", "friend", "upcall"} {
		if _, err := analysts.Add(t.Context(), name); !errors.Is(err, ErrExists) {
			t.Errorf("add %s: %v", name, err)
		}
	}
	for _, name := range []string{"", "Ann", "1a", "a-b", `a"b`, "a b", "ann\n", "é", strings.Repeat("a", 64), "pg_ann", "public", "none",
		"upcall_analyst"} {
		if _, err := analysts.Add(t.Context(), name); !errors.Is(err, ErrAnalystName) || strings.Contains(err.Error(), "\n") {
			t.Errorf("add %q: %v", name, err)
		}
	}
	for _, name := range []string{"ann", "user", strings.Repeat("a", 63)} { // a keyword, and the longest
		if _, err := analysts.Add(t.Context(), name); err != nil {
			t.Errorf("add %s: %v", name, err)
		}
	}
	for name, want := range map[string]error{"app": ErrNotFound, "nobody": ErrNotFound, "Ann": ErrNotFound, "upcall_analyst": ErrNotFound,
		"upcall": ErrNotFound, "friend": ErrNotOurs} {
		if _, err := analysts.Remove(t.Context(), name); !errors.Is(err, want) {
			t.Errorf("remove %s: %v, want %v", name, err, want)
		}
	}
	list, err := analysts.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range list {
		got = append(got, fmt.Sprintf("%.6s %v %v %d", a.Name, a.Login, a.Made, len(a.Settings)))
	}
	if diff := cmp.Diff([]string{"aaaaaa true true 5", "ann true true 5", "friend true false 0", "user true true 5"}, got); diff != "" {
		t.Error(diff)
	}
	// One that owns something stays, but cannot log in.
	execute("CREATE SCHEMA theirs AUTHORIZATION ann")
	if _, err := analysts.Remove(t.Context(), "ann"); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "theirs") {
		t.Errorf("remove an owner: %v", err)
	}
	if list, err := analysts.List(t.Context()); err != nil || len(list) != 4 || list[1].Login {
		t.Errorf("after that: %v, %v", list, err)
	}
	execute("DROP SCHEMA theirs")
	if _, err := analysts.Remove(t.Context(), "ann"); err != nil {
		t.Error(err)
	}
	// A session ends with its role.
	name, member := addAnalyst(t, pool)
	conn := connectAs(t, member)
	if left, err := analysts.Remove(t.Context(), name); err != nil || left != 0 {
		t.Errorf("remove: %d sessions left, %v", left, err)
	}
	if _, err := conn.Exec(t.Context(), "SELECT 1"); err == nil {
		t.Error("the session has survived its role")
	}
}

// TestAnalystsByAnotherRole makes and drops analysts with a role that may do just that.
func TestAnalystsByAnotherRole(t *testing.T) {
	t.Parallel()
	server := dbtest.NewServer(t)
	ours := dbtest.Role(t, server.URL(), "GRANT USAGE ON SCHEMA upcall TO ROLE", "GRANT SELECT ON upcall.schema_migrations TO ROLE")
	pool := dbtest.Open(t, ours, Open)
	analysts := NewAnalysts(pool)
	_, err := analysts.Add(t.Context(), "ann")
	if !errors.Is(err, ErrMistake) || !strings.Contains(err.Error(), "CREATEROLE") {
		t.Fatalf("without rights: %v", err)
	}
	// Run what it says.
	_, rest, _ := strings.Cut(err.Error(), "let one run: ")
	if !strings.HasPrefix(rest, "ALTER ROLE") {
		t.Fatalf("it says: %v", err)
	}
	dbtest.Execute(t, server.URL(), strings.TrimSpace(rest))
	if _, err := analysts.Add(t.Context(), "ann"); err != nil {
		t.Fatal(err)
	}
	if list, err := analysts.List(t.Context()); err != nil || list[0].Name != "ann" {
		t.Errorf("list: %v, %v", list, err)
	}
	if _, err := analysts.Remove(t.Context(), "ann"); err != nil {
		t.Error(err)
	}
	dbtest.Execute(t, server.URL(), "DROP OWNED BY upcall_analyst; DROP ROLE upcall_analyst")
	if _, err := analysts.Add(t.Context(), "ann"); !errors.Is(err, ErrMistake) || !strings.Contains(err.Error(), "migrate up") {
		t.Errorf("without the role of analysts: %v", err)
	}
}
