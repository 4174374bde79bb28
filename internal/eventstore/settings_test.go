package eventstore

import (
	"net/url"
	"testing"

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
