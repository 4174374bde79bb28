package eventstore

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/dbtest"
	"upcall/migrations"
)

// settings returns PostgreSQL's view of the settings that this package makes.
func settings(t *testing.T, databaseURL string, open dbtest.Opener) map[string]string {
	t.Helper()
	pool, err := open(t.Context(), databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	got := make(map[string]string)
	for _, name := range []string{
		"application_name", "default_transaction_isolation", "synchronous_commit", "idle_in_transaction_session_timeout",
		"statement_timeout", "lock_timeout", "default_transaction_read_only", "plan_cache_mode", "enable_seqscan", "jit",
	} {
		var value string
		if err := pool.QueryRow(t.Context(), "SELECT current_setting($1)", name).Scan(&value); err != nil {
			t.Fatal(err)
		}
		got[name] = value
	}
	return got
}

func TestOpen(t *testing.T) {
	t.Parallel()
	direct := dbtest.URL(t)
	plain := settings(t, direct, pgxpool.New)
	all := map[string]string{
		"application_name": "upcall", "default_transaction_isolation": "read committed", "synchronous_commit": "on",
		"idle_in_transaction_session_timeout": "10s",
	}
	for _, way := range []struct {
		name string
		open dbtest.Opener
		own  map[string]string
	}{
		{"Open", Open, map[string]string{"statement_timeout": "5s", "lock_timeout": "2s"}},
		{"OpenReader", OpenReader, map[string]string{
			"statement_timeout": "0", "lock_timeout": "10s", "default_transaction_read_only": "on",
		}},
		{"OpenRecorder", OpenRecorder, map[string]string{
			"statement_timeout": "5s", "lock_timeout": "2s", "plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "jit": "off",
		}},
	} {
		for query, asked := range map[string]map[string]string{
			"": nil,
			"&synchronous_commit=off&default_transaction_isolation=serializable": nil,
			"&synchronous_commit=remote_apply&application_name=mine&statement_timeout=7s": {
				"synchronous_commit": "remote_apply", "application_name": "mine", "statement_timeout": "7s",
			},
		} {
			want := maps.Clone(plain)
			for _, some := range []map[string]string{all, way.own, asked} {
				maps.Copy(want, some)
			}
			if diff := cmp.Diff(want, settings(t, direct+query, way.open)); diff != "" {
				t.Errorf("%s %q (-want +got):\n%s", way.name, query, diff)
			}
		}
		for _, bad := range []string{"hunter2", "postgres://me:hunter2%zz@host/db",
			"postgres://me:hunter2@host/db?pool_max_conns=hunter2"} {
			if _, err := way.open(t.Context(), bad); !errors.Is(err, migrations.ErrURL) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s %q: got %v, want ErrURL without the password", way.name, bad, err)
			}
		}
	}
}
