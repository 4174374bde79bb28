package receiver

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/pgbouncer"
	"upcall/internal/testing/servetest"
	"upcall/internal/testing/toolchain"
	"upcall/internal/testing/wait"
	"upcall/migrations"
)

// watch notes the settings of each transaction that records. They are weak by default.
var watch = []string{
	"ALTER ROLE CURRENT_USER IN DATABASE DB SET synchronous_commit = off",
	"ALTER ROLE CURRENT_USER IN DATABASE DB SET client_min_messages = error",
	"CREATE TABLE noted (settings text)",
	`CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		INSERT INTO noted VALUES (concat_ws(' ', current_setting('synchronous_commit'), current_setting('client_min_messages'),
			current_setting('transaction_isolation'), current_setting('plan_cache_mode'), current_setting('statement_timeout')));
		RETURN NULL;
	END $$`,
	"CREATE TRIGGER note AFTER INSERT ON upcall.upload_events FOR EACH STATEMENT EXECUTE FUNCTION note()",
}

// TestPooler: behind PgBouncer, in session and in transaction mode, callbacks are recorded
// with the settings that promises rest on, again and again, and nothing is left behind.
func TestPooler(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "pgbouncer")
	for mode, settings := range map[string][]string{
		"direct": nil, "session": nil, "transaction": {"server_round_robin = 1"}, // so that no session serves twice in a row
		"session, ignoring":     {"ignore_startup_parameters = synchronous_commit, statement_timeout, plan_cache_mode, extra_float_digits"},
		"transaction, ignoring": {"ignore_startup_parameters = synchronous_commit, statement_timeout, plan_cache_mode, extra_float_digits"},
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			direct, keyURL := dbtest.URL(t), ossfake.KeyURL(t)
			u, err := url.Parse(direct)
			if err != nil {
				t.Fatal(err)
			}
			for _, statement := range watch {
				dbtest.Execute(t, direct, strings.ReplaceAll(statement, "DB", u.Path[1:]))
			}
			through := direct
			if mode, _, _ := strings.Cut(mode, ","); mode != "direct" {
				through = pgbouncer.Start(t, direct, mode, settings...)
			}
			ids, refused := make(map[uuid.UUID]bool), 0
			for range 2 { // the second one finds what the first one left in the pooler's sessions
				receiver := start(t, Config{DatabaseURL: through, TrustKeyURLs: []string{keyURL}})
				l := startLoad(t, receiver.Public, keyURL, 8, answered.unavailable)
				wait.Until(t, "callbacks are recorded", func() bool { return l.answers("postgres") >= 200 })
				l.stop()
				refused += l.refusals()
				for id := range l.ids {
					ids[id] = true
				}
				if got := call(http.DefaultClient, receiver.Public, "http://127.0.0.1/other.pem", "bucket=demo"); got.code != 403 {
					t.Errorf("a callback that is refused: %+v", got)
				}
				if code, body := servetest.Get(t, receiver.Admin+"/readyz"); code != 200 || !strings.Contains(body, "partitions: 2 months ahead") {
					t.Errorf("readyz: %d %s", code, body)
				}
				wait.Until(t, "the refusal is kept", func() bool { return count(t, direct, "SELECT count(*) FROM upcall.refused_callbacks") > 0 })
				if err := receiver.Stop(); err != nil {
					t.Error(err)
				}
				cfg := Config{DatabaseURL: through, RetentionDays: 400, Now: time.Now}
				if _, err := Maintain(t.Context(), cfg); err != nil {
					t.Errorf("maintain: %v", err)
				}
			}
			wantRows(t, direct, ids, refused)
			const right = "on warning read committed force_generic_plan 5s"
			if n := count(t, direct, "SELECT count(*) FROM noted WHERE settings <> '"+right+"'"); n > 0 {
				t.Errorf("%d transactions had other settings than %s", n, right)
			}
			if n := count(t, direct, "SELECT count(*) FROM noted"); n == 0 {
				t.Error("no transaction was noted")
			}
			if n := count(t, direct, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = "+
				"(SELECT oid FROM pg_database WHERE datname = current_database())"); n > 0 {
				t.Errorf("%d locks were left behind", n)
			}
		})
	}
}

// count returns the number that a query finds.
func count(t *testing.T, databaseURL, query string) (n int) {
	t.Helper()
	pool, err := eventstore.Open(t.Context(), databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if err := pool.QueryRow(t.Context(), query).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

// TestPoolerMistakes: what a pooler makes impossible is an error at the start.
func TestPoolerMistakes(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "pgbouncer")
	weak := func(setting string) string {
		direct := dbtest.URL(t)
		u, err := url.Parse(direct)
		if err != nil {
			t.Fatal(err)
		}
		dbtest.Execute(t, direct, "ALTER DATABASE "+u.Path[1:]+" SET "+setting)
		return direct
	}
	direct := dbtest.URL(t)
	for name, tt := range map[string]struct{ url, want string }{
		"isolation, transaction": {pgbouncer.Start(t, weak("default_transaction_isolation = serializable"), "transaction"),
			"SET default_transaction_isolation = 'read committed'"},
		"isolation, session": {pgbouncer.Start(t, weak("default_transaction_isolation = 'repeatable read'"), "session"),
			"SET default_transaction_isolation = 'read committed'"},
		"a setting of the URL": {pgbouncer.Start(t, direct, "session") + "&work_mem=8MB", "unsupported startup parameter: work_mem"},
		"wrong password":       {strings.Replace(pgbouncer.Start(t, direct, "session"), ":", ":x", 2), ""},
		"statement mode":       {pgbouncer.Start(t, direct, "statement"), "pool"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tt.want == "" {
				u, err := url.Parse(direct)
				if err != nil {
					t.Fatal(err)
				}
				u.User = url.UserPassword(u.User.Username(), "hunter2")
				u.Host = tt.url[strings.LastIndex(tt.url, "@")+1 : strings.LastIndex(tt.url, "/")]
				tt.url, tt.want = u.String(), "UPCALL_DATABASE_URL"
			}
			err := mistake(t, Config{DatabaseURL: tt.url})
			if !errors.Is(err, eventstore.ErrMistake) || !strings.Contains(err.Error(), tt.want) || strings.Contains(fmt.Sprint(err), "\n") {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// TestPoolerWithoutPostgres: a pooler that cannot log in to PostgreSQL says so with the SQLSTATE that it has for
// mistakes, too. It is an outage all the same: the receiver starts, and records when PostgreSQL is back.
func TestPoolerWithoutPostgres(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "pgbouncer")
	server, keyURL := dbtest.NewServer(t), ossfake.KeyURL(t)
	through := pgbouncer.Start(t, server.URL(), "transaction", "server_login_retry = 1")
	if err := check(t, Config{DatabaseURL: through}); err != nil { // after which the pooler knows what PostgreSQL says to a client
		t.Fatal(err)
	}
	server.Kill(t)
	wait.Until(t, "the pooler says that it cannot log in", func() bool {
		err := check(t, Config{DatabaseURL: through})
		if isMistake(err) {
			t.Fatalf("an outage is taken for a mistake: %v", err)
		}
		return err != nil && strings.Contains(err.Error(), "server login has been failing")
	})
	receiver := start(t, Config{DatabaseURL: through, TrustKeyURLs: []string{keyURL}, SpoolDir: t.TempDir(), SpoolMinFreeBytes: -1})
	got := call(http.DefaultClient, receiver.Public, keyURL, "bucket=demo&object=a&reqId=1")
	if got.code != 200 || !strings.Contains(got.body, `"durable":"spool"`) {
		t.Errorf("without PostgreSQL: %+v", got)
	}
	server.Restart(t)
	wait.Until(t, "the callback is recorded", func() bool { return receiver.Metric(t, "upcall_spool_depth") == 0 })
	if n := count(t, server.URL(), "SELECT count(*) FROM upcall.upload_events"); n != 1 {
		t.Errorf("%d events are recorded", n)
	}
}

// TestMigratePooled: migrations refuse to run where their lock would be left behind.
func TestMigratePooled(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "pgbouncer")
	direct := dbtest.Empty(t)
	for _, settings := range [][]string{nil, {"server_round_robin = 1"}, {"default_pool_size = 1"}} {
		through := pgbouncer.Start(t, direct, "transaction", settings...)
		for range 3 {
			if err := migrations.Up(t.Context(), through); !errors.Is(err, migrations.ErrPooler) {
				t.Errorf("transaction mode, %q: %v", settings, err)
			}
		}
		if _, err := migrations.Status(t.Context(), through); err != nil {
			t.Errorf("status in transaction mode: %v", err)
		}
	}
	if err := migrations.Up(t.Context(), pgbouncer.Start(t, direct, "session")); err != nil {
		t.Errorf("session mode: %v", err)
	}
}
