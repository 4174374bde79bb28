package main

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/testing/clitest"
	"upcall/internal/testing/natstest"
	"upcall/internal/testing/proc"
	"upcall/internal/testing/wait"
)

func TestMain(m *testing.M) {
	proc.Main(map[string]func(){"receiver": main, natstest.Child: natstest.Serve})
	os.Exit(m.Run())
}

// TestEraseKilled kills the command in the middle of each month. The same command goes on: in the end
// nothing remains, and each row is counted once.
func TestEraseKilled(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t)
	pool := dbtest.Open(t, url, eventstore.Open)
	const each = 500 // events in each month, which are more than a step changes at once
	first := time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, 1-time.Now().UTC().Day())
	months := []time.Time{first, first.AddDate(0, -1, 0), first.AddDate(0, -2, 0)}
	for _, month := range months {
		if err := eventstore.EnsurePartitions(t.Context(), pool, month); err != nil {
			t.Fatal(err)
		}
		_, err := pool.Exec(t.Context(), `INSERT INTO upcall.upload_events (id, received_at, bucket, object_key, source, vars, client_ip)
			SELECT gen_random_uuid(), $1::timestamptz + n * interval '1 s', 'demo', n::text, 'callback',
				jsonb_build_object('uid', $2::text), $3
			FROM generate_series(1, $4) AS n`, month, theirName, theirAddress, each)
		if err != nil {
			t.Fatal(err)
		}
	}
	number := func(sql string) (n int) {
		t.Helper()
		if err := pool.QueryRow(t.Context(), sql).Scan(&n); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		return n
	}
	const erased = "SELECT coalesce(sum(events), 0) FROM upcall.erasures"
	const busy = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'"
	var counts []int
	for _, month := range months {
		// The command waits for this row, in its second or third step of the month.
		holder, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		const hold = "SELECT FROM upcall.upload_events WHERE received_at = $1::timestamptz + interval '300 s' FOR UPDATE"
		if _, err := holder.Exec(t.Context(), hold, month); err != nil {
			t.Fatal(err)
		}
		child := proc.Start(t, "receiver", "erase", "--database-url", url, "--var", "uid="+theirName)
		wait.Until(t, "it waits", func() bool {
			return number(`SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
				WHERE NOT granted AND datname = current_database()`) > 0
		})
		child.Kill(t)
		if err := holder.Rollback(context.Background()); err != nil {
			t.Fatal(err)
		}
		wait.Until(t, "PostgreSQL has noticed", func() bool { return number(busy) == 0 })
		counts = append(counts, number(erased))
	}
	// 200 rows in a step: each time it went on where it was, and the months before were not done again.
	if diff := cmp.Diff([]int{200, 700, 1200}, counts); diff != "" {
		t.Errorf("erased after each kill (-want +got): %s", diff)
	}
	var total eventstore.Erased
	env := clitest.Env{"UPCALL_DATABASE_URL": url}
	if err := json.Unmarshal([]byte(program.Output(t, env, "erase", "--var", "uid="+theirName, "--format", "json")), &total); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(eventstore.Erased{Events: 3 * each}, total); diff != "" {
		t.Error(diff)
	}
	if n := number("SELECT count(*) FROM upcall.upload_events WHERE vars <> '{}' OR client_ip IS NOT NULL"); n > 0 {
		t.Errorf("%d events are as they were", n)
	}
	rows, err := pool.Query(t.Context(), "SELECT unnest(months) FROM upcall.erasures WHERE finished_at IS NOT NULL ORDER BY 1 DESC")
	if err != nil {
		t.Fatal(err)
	}
	done, err := pgx.CollectRows(rows, pgx.RowTo[string])
	var want []string
	for _, month := range months[1:] { // events of this month may still come
		want = append(want, "upload_events_"+month.Format("2006_01"))
	}
	if done = slices.DeleteFunc(done, func(table string) bool { return table < want[1] }); err != nil || !cmp.Equal(want, done) {
		t.Errorf("months that are done: %q, %v; want %q", done, err, want)
	}
}
