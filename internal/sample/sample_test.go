package sample_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/sample"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var until = time.Date(2026, 11, 26, 16, 0, 0, 0, time.UTC)

// fill makes a small database.
func fill(t *testing.T, c sample.Config) *pgxpool.Pool {
	t.Helper()
	c.Pool = dbtest.Pool(t, eventstore.Open)
	c.Feed = dbtest.Beside(t, c.Pool, eventstore.OpenFeed)
	c.Until = until
	if err := sample.Fill(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	return c.Pool
}

func lines(t *testing.T, pool *pgxpool.Pool, sql string) []string {
	t.Helper()
	rows, err := pool.Query(t.Context(), sql)
	if err != nil {
		t.Fatalf("%v in %s", err, sql)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%v in %s", err, sql)
	}
	return got
}

// TestSameRows holds that the same configuration makes the same rows, whatever transactions they
// come in, and another seed others.
func TestSameRows(t *testing.T) {
	t.Parallel()
	tables := []string{
		"(SELECT to_jsonb(e) - 'recorded_xid' AS t FROM upcall.upload_events e)", "upcall.callback_ids", "upcall.issued_uploads",
		"upcall.revoked_uploads", "upcall.refused_callbacks", "upcall.api_keys", "upcall.hook_endpoints", "upcall.hook_counts",
		"upcall.hook_retries", "upcall.hook_attempts",
	}
	first := fill(t, sample.Config{Events: 3000, Seed: 1})
	again := fill(t, sample.Config{Events: 3000, Seed: 1, PerTransaction: 100})
	other := fill(t, sample.Config{Events: 3000, Seed: 2})
	for _, table := range tables {
		sql := "SELECT t::text FROM " + table + " t ORDER BY 1"
		want := lines(t, first, sql)
		if len(want) == 0 {
			t.Errorf("%s is empty", table)
		}
		if diff := cmp.Diff(want, lines(t, again, sql)); diff != "" {
			t.Errorf("%s differs:\n%.2000s", table, diff)
		}
		if table != "upcall.api_keys" && slices.Equal(want, lines(t, other, sql)) {
			t.Errorf("%s is the same with another seed", table)
		}
	}
}

// TestPlausible holds what queries rely on.
func TestPlausible(t *testing.T) {
	t.Parallel()
	var reported int
	pool := fill(t, sample.Config{Events: 20_000, Seed: 1, Report: func(n int) { reported = n }})
	if reported != 20_000 {
		t.Errorf("%d events were reported", reported)
	}
	for _, c := range []struct {
		what, sql string
		min, max  int
	}{
		{"events", "FROM upcall.upload_events", 20_000, 20_000},
		{"ids", "FROM upcall.callback_ids JOIN upcall.upload_events USING (id, received_at)", 20_000, 20_000},
		{"events outside of the year", `FROM upcall.upload_events
			WHERE received_at NOT BETWEEN '2025-11-26 15:59Z' AND '2026-11-26 16:00Z'`, 0, 0},
		{"events that lack their ledger row", `FROM upcall.upload_events e
			WHERE upload_id IS NOT NULL AND NOT EXISTS (SELECT FROM upcall.issued_uploads u WHERE u.upload_id = e.upload_id)`, 0, 0},
		{"events before their upload was issued", `FROM upcall.upload_events JOIN upcall.issued_uploads USING (upload_id)
			WHERE received_at < issued_at`, 0, 20},
		{"events of another object than issued", `FROM upcall.upload_events e JOIN upcall.issued_uploads u USING (upload_id)
			WHERE (e.bucket, e.object_key) <> (u.bucket, u.object_key)`, 0, 0},
		{"uploads never used", `FROM upcall.issued_uploads u
			WHERE NOT EXISTS (SELECT FROM upcall.upload_events e WHERE e.upload_id = u.upload_id)`, 1200, 2000},
		{"uploads used twice", `FROM (SELECT FROM upcall.upload_events WHERE upload_id IS NOT NULL AND source = 'callback'
			GROUP BY upload_id HAVING count(*) > 1) twice`, 15, 80},
		{"revocations", "FROM upcall.revoked_uploads JOIN upcall.issued_uploads USING (upload_id) WHERE revoked_at > issued_at", 50, 200},
		{"events without a bucket or key", "FROM upcall.upload_events WHERE bucket IS NULL AND object_key IS NULL", 1, 20},
		{"events of unissued uploads", "FROM upcall.upload_events WHERE upload_id IS NULL", 400, 900},
		{"events without a size", "FROM upcall.upload_events WHERE size IS NULL", 200, 500},
		{"overwritten objects", "FROM (SELECT FROM upcall.upload_events GROUP BY bucket, object_key HAVING count(*) > 1) o", 500, 2000},
		{"contents uploaded more than once", `FROM (SELECT FROM upcall.upload_events
			GROUP BY crc64, size HAVING count(DISTINCT object_key) > 1) c`, 100, 2000},
		{"CRC-64 above 2^63", "FROM upcall.upload_events WHERE crc64 >= 9223372036854775808", 8000, 12000},
		{"notifications", "FROM upcall.upload_events WHERE source = 'notification'", 30, 300},
		{"found by reconcile", "FROM upcall.upload_events WHERE source = 'reconcile'", 5, 100},
		{"told twice", `FROM upcall.upload_events a JOIN upcall.upload_events b USING (bucket, object_key, request_id)
			WHERE a.source = 'callback' AND b.source = 'notification'`, 5, 60},
		{"operations", "FROM (SELECT DISTINCT operation FROM upcall.upload_events WHERE operation IS NOT NULL) o", 3, 3},
		{"months", "FROM (SELECT DISTINCT tableoid FROM upcall.upload_events) m", 13, 13},
		{"events of the busiest user", `FROM upcall.upload_events WHERE vars->>'uid' = (
			SELECT vars->>'uid' FROM upcall.upload_events GROUP BY 1 ORDER BY count(vars->>'uid') DESC LIMIT 1)`, 150, 800},
		{"events at noon", "FROM upcall.upload_events WHERE extract(hour FROM received_at AT TIME ZONE 'Asia/Shanghai') = 12", 600, 1600},
		{"events at night", "FROM upcall.upload_events WHERE extract(hour FROM received_at AT TIME ZONE 'Asia/Shanghai') = 3", 20, 300},
		{"events of the last quarter", "FROM upcall.upload_events WHERE received_at >= '2026-08-26 16:00Z'", 6000, 9000},
		{"events of the first quarter", "FROM upcall.upload_events WHERE received_at < '2026-02-26 16:00Z'", 2000, 4500},
		{"recorded late", `FROM (SELECT received_at,
			max(received_at) OVER (ORDER BY recorded_xid ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM upcall.upload_events) e WHERE received_at < before - interval '5 hours'`, 1, 20_000},
		{"refusals", "FROM upcall.refused_callbacks", 20, 20},
		{"hooks that fail", "FROM upcall.hook_status WHERE waiting + dead_letters > 0", 5, 5},
		{"attempts of events", `FROM upcall.hook_attempts a
			JOIN upcall.upload_events e ON e.id = a.event_id AND e.received_at = a.received_at`, 500, 2500},
	} {
		var got int
		if err := pool.QueryRow(t.Context(), "SELECT count(*) "+c.sql).Scan(&got); err != nil {
			t.Errorf("%s: %v", c.what, err)
		} else if got < c.min || got > c.max {
			t.Errorf("%s: there are %d, want %d to %d", c.what, got, c.min, c.max)
		}
	}
}

// TestCount holds that the consumer of the log counts them and stores their days before Count returns, and that
// a database is filled once.
func TestCount(t *testing.T) {
	t.Parallel()
	pool := fill(t, sample.Config{Events: 2000, Seed: 3})
	feedPool := dbtest.Beside(t, pool, eventstore.OpenFeed)
	var last sample.Progress
	err := sample.Count(t.Context(), feedPool, slog.New(slog.NewTextHandler(t.Output(), nil)), func(p sample.Progress) { last = p })
	if err != nil {
		t.Fatal(err)
	}
	var want int
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM upcall.upload_events e WHERE NOT EXISTS (
			SELECT FROM upcall.upload_events better WHERE better.source = 'callback' AND e.source <> 'callback'
			AND (better.bucket, better.object_key, better.request_id) = (e.bucket, e.object_key, e.request_id))`).Scan(&want); err != nil {
		t.Fatal(err)
	}
	if last.Uploads != want || want >= 2000 {
		t.Errorf("%d uploads are counted, want %d", last.Uploads, want)
	}
	const stored = `SELECT concat_ws(' ', count(*) FILTER (WHERE stored), (SELECT count(DISTINCT day) FROM upcall.rollup_funnel) > 300)
		FROM upcall.rollup_days WHERE day BETWEEN '2025-11-26' AND '2026-11-25'`
	if got := lines(t, pool, stored)[0]; got != "365 t" || last.Stored != last.Days || last.Days < 365 {
		t.Errorf("days that are stored: %s; %d of %d were reported", got, last.Stored, last.Days)
	}
	config := sample.Config{Pool: pool, Feed: feedPool, Events: 1, Until: until}
	if err := sample.Fill(t.Context(), config); !errors.Is(err, sample.ErrNotEmpty) {
		t.Errorf("filled again: %v", err)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	good := sample.Config{Pool: &pgxpool.Pool{}, Feed: &pgxpool.Pool{}, Events: 1, Until: until}
	for name, change := range map[string]func(*sample.Config){
		"no pool":       func(c *sample.Config) { c.Pool = nil },
		"no feed":       func(c *sample.Config) { c.Feed = nil },
		"no events":     func(c *sample.Config) { c.Events = 0 },
		"no end":        func(c *sample.Config) { c.Until = time.Time{} },
		"less than one": func(c *sample.Config) { c.PerTransaction = -1 },
	} {
		bad := good
		if change(&bad); sample.Fill(context.Background(), bad) == nil {
			t.Errorf("%s was taken", name)
		}
	}
}
