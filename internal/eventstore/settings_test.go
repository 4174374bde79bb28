package eventstore

import (
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"upcall/internal/dbtest"
	"upcall/internal/testing/pgbouncer"
	"upcall/internal/testing/toolchain"
)

// TestSettingsOfTheDatabase: whatever someone has set for the database, events are recorded and
// found, also through a pooler.
func TestSettingsOfTheDatabase(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "pgbouncer")
	databaseURL := dbtest.URL(t)
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	for _, setting := range []string{
		"search_path = ''", "synchronous_commit = off", "client_min_messages = error", "enable_seqscan = on", "enable_indexscan = off",
		"plan_cache_mode = force_custom_plan", "DateStyle = 'German'", "TimeZone = 'Asia/Shanghai'", "client_encoding = 'SQL_ASCII'",
		"standard_conforming_strings = off", "bytea_output = 'escape'", "array_nulls = off", "row_security = off",
		"transform_null_equals = on", "quote_all_identifiers = on",
	} {
		dbtest.Execute(t, databaseURL, "ALTER DATABASE "+u.Path[1:]+" SET "+setting)
	}
	for name, through := range map[string]string{"direct": databaseURL, "pooled": pgbouncer.Start(t, databaseURL, "transaction")} {
		r := newRecorder(t, Config{Pool: dbtest.Open(t, through, Open), MaxEvents: 1})
		e := eventOf(smallUpload())
		e.Callback.Object = "é测试"
		record(t, r, e, false)
		record(t, r, e, true)
		if found, err := r.Find(t.Context(), e.ID, e.UploadID); !found || err != nil {
			t.Errorf("%s: found %t, %v", name, found, err)
		}
		if err := r.Ping(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := r.Fits(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		pool := r.group.config.Pool
		var object string
		err := pool.QueryRow(t.Context(), "SELECT object_key FROM upcall.upload_events WHERE id = $1", e.ID).Scan(&object)
		if err != nil || object != e.Callback.Object {
			t.Errorf("%s: recorded %q, %v", name, object, err)
		}
		if err := EnsurePartitions(t.Context(), pool, at.AddDate(0, 6, 0)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// noteSettings notes the settings that statements on two tables run with.
const noteSettings = `CREATE TABLE noted (setting text);
	CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		INSERT INTO noted SELECT concat(TG_TABLE_NAME, ': ', name, ' = ', current_setting(name))
			FROM unnest('{synchronous_commit,client_min_messages,statement_timeout,lock_timeout,plan_cache_mode,
				enable_seqscan,jit}'::text[]) AS name;
		RETURN NULL;
	END $$;
	CREATE TRIGGER note AFTER INSERT ON upcall.upload_events FOR EACH STATEMENT EXECUTE FUNCTION note();
	CREATE TRIGGER note AFTER INSERT OR UPDATE ON upcall.api_keys FOR EACH STATEMENT EXECUTE FUNCTION note()`

// TestSettingsOfTransactions: each transaction that someone relies on runs with the settings of
// its pool, through any pooler, even one that drops them from the start-up message.
func TestSettingsOfTransactions(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "pgbouncer")
	const ignore = "ignore_startup_parameters = synchronous_commit, client_min_messages, statement_timeout, lock_timeout, " +
		"plan_cache_mode, enable_seqscan, jit, extra_float_digits"
	for mode, settings := range map[string][]string{
		"direct": nil, "session": nil, "session, ignoring": {ignore},
		"transaction":           {"server_round_robin = 1"}, // so that no session serves twice in a row
		"transaction, ignoring": {"server_round_robin = 1", ignore},
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			direct := dbtest.URL(t)
			u, err := url.Parse(direct)
			if err != nil {
				t.Fatal(err)
			}
			for _, setting := range []string{"synchronous_commit = off", "client_min_messages = error", "statement_timeout = '9min'",
				"lock_timeout = '8min'", "plan_cache_mode = force_custom_plan", "enable_seqscan = on", "jit = on"} {
				dbtest.Execute(t, direct, "ALTER DATABASE "+u.Path[1:]+" SET "+setting)
			}
			dbtest.Execute(t, direct, noteSettings)
			through := direct
			if mode, _, _ := strings.Cut(mode, ","); mode != "direct" {
				through = pgbouncer.Start(t, direct, mode, settings...)
			}
			ordinary := dbtest.Open(t, through, Open)
			r, keys := newRecorder(t, Config{Pool: ordinary}), NewAPIKeys(ordinary)
			for range 5 {
				record(t, r, smallEvent(), false)
			}
			if err := keys.Add(t.Context(), APIKey{ID: "web", Hash: make([]byte, 32), Policy: "photos", CreatedAt: at}); err != nil {
				t.Error(err)
			}
			if err := keys.Revoke(t.Context(), "web"); err != nil {
				t.Error(err)
			}
			rows, _ := dbtest.Open(t, direct, Open).Query(t.Context(), "SELECT DISTINCT setting COLLATE \"C\" FROM noted ORDER BY 1")
			got, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				t.Fatal(err)
			}
			want := []string{
				"api_keys: client_min_messages = warning", "api_keys: enable_seqscan = on", "api_keys: jit = on",
				"api_keys: lock_timeout = 30s", "api_keys: plan_cache_mode = force_custom_plan", "api_keys: statement_timeout = 1min",
				"api_keys: synchronous_commit = on",
				"upload_events: client_min_messages = warning", "upload_events: enable_seqscan = off", "upload_events: jit = off",
				"upload_events: lock_timeout = 30s", "upload_events: plan_cache_mode = force_generic_plan",
				"upload_events: statement_timeout = 1min", "upload_events: synchronous_commit = on",
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("settings (-want +got):\n%s", diff)
			}
		})
	}
}
