package eventstore

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/dbtest"
)

// lines returns the rows of a query with one text column.
func lines(t *testing.T, pool *pgxpool.Pool, sql string) []string {
	t.Helper()
	rows, err := pool.Query(t.Context(), sql)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestUploadFunnel(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	l, r := newLedger(t, Config{Pool: pool}), newRecorder(t, Config{Pool: pool})
	const counts = `SELECT concat_ws(' ', day, bucket, issued, uploaded, pending, expired_unused, revoked, overwritten, unissued,
		median_time_to_upload, p95_time_to_upload) FROM upcall.upload_funnel`
	if got := lines(t, pool, counts+" ORDER BY day"); len(got) != 0 {
		t.Errorf("without rows: got %q", got)
	}

	late := time.Date(2026, 11, 21, 23, 59, 59, 0, time.UTC)
	past := at.AddDate(-1, 0, 0)
	upload := func(issued, expires time.Time, object string) IssuedUpload {
		u := IssuedUpload{ID: uuid.New(), IssuedAt: issued, ExpiresAt: expires, Bucket: "demo", Object: object}
		issue(t, l, u)
		return u
	}
	use := func(u IssuedUpload, after time.Duration) {
		e := eventOf(u)
		e.ReceivedAt = u.IssuedAt.Add(after)
		record(t, r, e, false)
	}
	// The upload of the first day is used on the second, and counts for the first.
	use(upload(late, far, "late"), 2*time.Second)
	// The uploads of the second day.
	upload(at, far, "pending")
	upload(at, past, "expired")
	revoke(t, l, upload(at, far, "revoked").ID)
	use(upload(at, far, "used"), 10*time.Second)
	use(upload(at, past, "used late"), 20*time.Second)
	u := upload(at, far, "used revoked")
	use(u, 30*time.Second)
	revoke(t, l, u.ID)
	u = upload(at, far, "used twice")
	use(u, time.Hour)
	use(u, 40*time.Second)
	// Two uploads to one object, and one to the same key in another bucket. That the second overwrites the
	// first is known when the roll-ups have read it, which package rollup tests.
	use(upload(at, far, "same"), 50*time.Second)
	use(upload(at, far, "same"), 60*time.Second)
	u = IssuedUpload{ID: uuid.New(), IssuedAt: at, ExpiresAt: far, Bucket: "other", Object: "same"}
	issue(t, l, u)
	use(u, 70*time.Second)
	// Events without an issued upload.
	record(t, r, smallEvent(), false)
	use(IssuedUpload{ID: uuid.New(), IssuedAt: at, Bucket: "demo", Object: "same"}, time.Minute)
	bare := smallEvent()
	bare.Callback.Bucket = ""
	bare.ReceivedAt = at.AddDate(0, 0, 2)
	record(t, r, bare, false)

	want := []string{
		"2026-11-21 demo 1 1 0 0 0 0 0 00:00:02 00:00:02",
		"2026-11-22 demo 9 6 1 1 2 1 2 00:00:35 00:00:57.5",
		"2026-11-22 other 1 1 0 0 0 0 0 00:01:10 00:01:10",
		"2026-11-24 0 0 0 0 0 0 1",
	}
	if diff := cmp.Diff(want, lines(t, pool, counts+" ORDER BY day, bucket")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want[1:3], lines(t, pool, counts+" WHERE day = '2026-11-22' ORDER BY bucket")); diff != "" {
		t.Error(diff)
	}
	want = []string{
		"expired, expired, 0 events, overwritten false",
		"late, uploaded, 1 events, overwritten false, after 00:00:02",
		"pending, issued, 0 events, overwritten false",
		"revoked, revoked, 0 events, overwritten false",
		"same, uploaded, 1 events, overwritten false, after 00:00:50",
		"same, uploaded, 1 events, overwritten false, after 00:01:00",
		"same, uploaded, 1 events, overwritten false, after 00:01:10",
		"used late, uploaded, 1 events, overwritten false, after 00:00:20",
		"used revoked, revoked, 1 events, overwritten false, after 00:00:30",
		"used twice, uploaded, 2 events, overwritten true, after 00:00:40",
		"used, uploaded, 1 events, overwritten false, after 00:00:10",
	}
	got := lines(t, pool, `SELECT concat_ws(', ', object_key, status, events || ' events',
		'overwritten ' || overwritten::text, 'after ' || time_to_upload)
		FROM upcall.upload_status`)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	functionsShowNoMore(t, pool)
}

// functionsShowNoMore checks that the functions that analysts may execute return, with any argument, what
// analysts can get from the views.
func functionsShowNoMore(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	conn := asAnalyst(t, pool)
	ask := func(sql string, args ...any) []string {
		t.Helper()
		rows, err := conn.Query(t.Context(), sql, args...)
		if err != nil {
			t.Fatal(err)
		}
		got, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		return got
	}
	const ofViews = `
		SELECT row(bucket, count(*) FILTER (WHERE issued), count(*) FILTER (WHERE events > 0),
			count(*) FILTER (WHERE status IN ('issued', 'expired')), count(*) FILTER (WHERE status = 'revoked'),
			count(*) FILTER (WHERE overwritten), count(*) FILTER (WHERE NOT issued),
			percentile_cont(0.5) WITHIN GROUP (ORDER BY took), percentile_cont(0.95) WITHIN GROUP (ORDER BY took),
			coalesce(array_agg(until ORDER BY until) FILTER (WHERE status = 'issued'), '{}'))::text
		FROM (
			SELECT true AS issued, bucket, status, events, overwritten, time_to_upload AS took, expires_at AS until
			FROM upcall.upload_status WHERE (issued_at AT TIME ZONE 'UTC')::date = $1
			UNION ALL
			SELECT false, l.bucket, NULL, NULL, NULL, NULL, NULL FROM upcall.upload_log l
			LEFT JOIN upcall.upload_status s USING (upload_id)
			WHERE (l.received_at AT TIME ZONE 'UTC')::date = $1 AND s.upload_id IS NULL
		) AS uploads GROUP BY bucket ORDER BY 1`
	const ofFunction = `SELECT row(bucket, issued, uploaded, unused, revoked, overwritten, unissued, median, p95,
		ARRAY(SELECT unnest(unused_until) ORDER BY 1))::text FROM upcall.funnel_of($1) ORDER BY 1`
	found := 0
	for _, day := range []any{
		"2026-11-20", "2026-11-21", "2026-11-22", "2026-11-23", "2026-11-24", "-infinity", "infinity", "0001-01-01", nil,
	} {
		got := ask(ofFunction, day)
		if diff := cmp.Diff(ask(ofViews, day), got); diff != "" {
			t.Errorf("funnel_of(%v) (-views +function): %s", day, diff)
		}
		found += len(got)
	}
	if found < 4 {
		t.Errorf("only %d rows were compared", found)
	}
	const both = `SELECT f::text FROM upcall.freshness() f EXCEPT SELECT v::text FROM upcall.upload_freshness v`
	if got := ask(both); len(got) > 0 || len(ask("SELECT consumer FROM upcall.freshness()")) == 0 {
		t.Errorf("freshness() returns %q, and upload_freshness does not", got)
	}
	// Also of what was not issued, and of the events that have no upload.
	const uses = `SELECT row(id, (upcall.uses_of(id)).events, (upcall.uses_of(id)).first_at)::text FROM (
		SELECT upload_id AS id FROM upcall.upload_status UNION SELECT upload_id FROM upcall.upload_log
		UNION SELECT '00000000-0000-0000-0000-000000000000') AS ids ORDER BY id`
	const usesOfView = `SELECT row(id, coalesce(s.events, 0), s.uploaded_at)::text FROM (
		SELECT upload_id AS id FROM upcall.upload_status UNION SELECT upload_id FROM upcall.upload_log
		UNION SELECT '00000000-0000-0000-0000-000000000000') AS ids LEFT JOIN upcall.upload_status s ON s.upload_id = id ORDER BY id`
	if diff := cmp.Diff(ask(usesOfView), ask(uses)); diff != "" || len(ask(uses)) < 6 {
		t.Errorf("uses_of (-view +function): %s", diff)
	}
	const columns = `SELECT proname || ': ' || pg_get_function_result(oid) FROM pg_proc
		WHERE pronamespace = 'upcall'::regnamespace ORDER BY 1`
	if diff := cmp.Diff([]string{
		"freshness: TABLE(consumer text, read_until timestamp with time zone, lag_seconds double precision)",
		"funnel_of: TABLE(bucket text, issued bigint, uploaded bigint, unused bigint, revoked bigint, overwritten bigint, " +
			"unissued bigint, median interval, p95 interval, unused_until timestamp with time zone[])",
		"uses_of: record",
	}, ask(columns)); diff != "" {
		t.Error(diff)
	}
	// What a caller can name before them, they do not read: not in a schema, and not in temporary tables.
	const pinned = `SELECT proname::text FROM pg_proc WHERE pronamespace = 'upcall'::regnamespace
		AND NOT (prosecdef AND provolatile = 's' AND proconfig @> ARRAY['search_path=""'])`
	if got := ask(pinned); len(got) > 0 {
		t.Errorf("%q have another search path, or may write", got)
	}
}
