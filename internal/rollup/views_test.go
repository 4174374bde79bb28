package rollup

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

// Views as the plain queries over events, and as they are. Each event of counted is an upload.
var views = map[string][2]string{
	"upload_log": {counted + `
		SELECT concat_ws(' ', id, received_at, bucket, object_key, size, mime_type, request_id, source, etag, crc64, vars, recorded_xid)
		FROM counted ORDER BY 1`, `
		SELECT concat_ws(' ', id, received_at, bucket, object_key, size, mime_type, request_id, source, etag, crc64, vars, recorded_xid)
		FROM upcall.upload_log ORDER BY 1`},
	"uploads": {counted + `
		SELECT concat_ws(' ', bucket, object_key, uploads, id, received_at, size, etag, crc64, mime_type, vars, source, first_at)
		FROM (SELECT *, min(received_at) OVER (PARTITION BY placed, bucket, object_key) AS first_at FROM placed) AS placed
		WHERE placed AND last = 1 ORDER BY 1`, `
		SELECT concat_ws(' ', bucket, object_key, uploads, event_id, received_at, size, etag, crc64, mime_type, vars, source, first_at)
		FROM upcall.uploads ORDER BY 1`},
	"upload_hourly": {counted + `
		SELECT concat_ws(' ', date_trunc('hour', received_at AT TIME ZONE 'UTC'), coalesce(bucket, '-'),
			coalesce(nullif(type, ''), '-'), source,
			count(*), coalesce(sum(size), 0), count(*) FILTER (WHERE nth = 1), count(*) FILTER (WHERE nth > 1))
		FROM placed GROUP BY date_trunc('hour', received_at AT TIME ZONE 'UTC'), bucket, nullif(type, ''), source ORDER BY 1`, `
		SELECT concat_ws(' ', hour AT TIME ZONE 'UTC', coalesce(bucket, '-'), coalesce(mime_type, '-'), source,
			uploads, bytes, new_objects, overwrites) FROM upcall.upload_hourly ORDER BY 1`},
	"upload_daily": {counted + `
		SELECT concat_ws(' ', (received_at AT TIME ZONE 'UTC')::date, coalesce(bucket, '-'), coalesce(nullif(type, ''), '-'), source,
			count(*), coalesce(sum(size), 0), count(*) FILTER (WHERE nth = 1), count(*) FILTER (WHERE nth > 1))
		FROM placed GROUP BY (received_at AT TIME ZONE 'UTC')::date, bucket, nullif(type, ''), source ORDER BY 1`, `
		SELECT concat_ws(' ', day, coalesce(bucket, '-'), coalesce(mime_type, '-'), source,
			uploads, bytes, new_objects, overwrites) FROM upcall.upload_daily ORDER BY 1`},
	"upload_loss": {counted + `
		SELECT concat_ws(' ', (received_at AT TIME ZONE 'UTC')::date, coalesce(bucket, '-'),
			count(*) FILTER (WHERE source = 'callback'), count(*) FILTER (WHERE source = 'notification'),
			count(*) FILTER (WHERE source = 'reconcile'), round(avg((source <> 'callback')::int), 9))
		FROM placed GROUP BY (received_at AT TIME ZONE 'UTC')::date, bucket ORDER BY 1`, `
		SELECT concat_ws(' ', day, coalesce(bucket, '-'), received, by_notification, by_reconcile, round(lost_share::numeric, 9))
		FROM upcall.upload_loss ORDER BY 1`},
}

// compareViews checks views against the plain queries.
func (w *world) compareViews(t testing.TB) {
	t.Helper()
	for name, q := range views {
		want, got := w.lines(t, q[0]), w.lines(t, q[1])
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-plain query +view):\n%s", name, head(diff))
		}
		if len(want) == 0 {
			t.Errorf("%s: nothing to compare", name)
		}
	}
}

// TestViewsEqualThePlainQuery: with late rows, repeats, overwrites, and rows without bucket or key, in
// several months.
func TestViewsEqualThePlainQuery(t *testing.T) {
	t.Parallel()
	w, random := newWorld(t), seeded(t)
	w.span = 70 * 24 * time.Hour
	for months := range 4 {
		w.partitions(t, time.Now().AddDate(0, 0, -30*months))
	}
	worker, run := w.worker(t, time.Minute)
	run()
	for range 3 {
		w.addRandom(t, random, 200)
		w.caughtUp(t, worker)
		w.compareViews(t)
	}
	w.exec(t, "UPDATE upcall.rollup_hourly SET uploads = uploads + 1")
	w.exec(t, "DELETE FROM upcall.rollup_objects WHERE object_key LIKE '%7'")
	w.exec(t, "DELETE FROM upcall.rollup_superseded")
	if err := Rebuild(t.Context(), w.pool); err != nil {
		t.Fatal(err)
	}
	w.rebuilt(t, worker)
	w.addRandom(t, random, 50)
	w.caughtUp(t, worker)
	w.compareViews(t)
}

// TestFreshness: of a consumer that has read nothing, a part, and all.
func TestFreshness(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const freshness = `SELECT concat_ws(' ', consumer, coalesce(extract(epoch FROM read_until)::bigint::text, '-'),
		round(lag_seconds / 60)) FROM upcall.upload_freshness ORDER BY 1`
	check := func(when string, want ...string) {
		t.Helper()
		if got := w.lines(t, freshness); !cmp.Equal(want, got) {
			t.Errorf("%s: got %q, want %q", when, got, want)
		}
	}
	check("without events", "rollup - 0")
	now := time.Now().Truncate(time.Second)
	early, late := now.Add(-100*time.Minute), now.Add(-40*time.Minute)
	w.add(t, early, "early", "x/y", "callback", "")
	w.add(t, late, "late", "x/y", "callback", "")
	check("without a consumer", "rollup - 100")
	worker, run := w.worker(t, time.Minute)
	stop := run()
	w.caughtUp(t, worker)
	stop()
	check("at the head", fmt.Sprintf("rollup %d 0", late.Unix()))
	w.add(t, now.Add(-20*time.Minute), "unread", "x/y", "callback", "")
	check("behind", fmt.Sprintf("rollup %d 20", late.Unix()))

	// Events from before migration 8 come first.
	w.exec(t, "UPDATE upcall.upload_events SET recorded_xid = NULL WHERE object_key <> 'unread'")
	w.exec(t, "UPDATE upcall.feed_log SET null_until = $1", late)
	check("after those without a number", fmt.Sprintf("rollup %d 20", late.Unix()))
	w.exec(t, `UPDATE upcall.feed_consumers SET recorded_xid = NULL, (received_at, id) =
		(SELECT received_at, id FROM upcall.upload_events WHERE object_key = 'early')`)
	check("among those without a number", fmt.Sprintf("rollup %d 40", early.Unix()))
	w.exec(t, "UPDATE upcall.feed_consumers SET received_at = '4713-01-01 BC', id = $1", uuid.Nil)
	check("before all", "rollup - 100")
	w.exec(t, "DELETE FROM upcall.upload_events WHERE object_key = 'unread'")
	w.exec(t, "UPDATE upcall.feed_consumers SET recorded_xid = '3', received_at = NULL")
	check("after all of those without a number", fmt.Sprintf("rollup %d 0", late.Unix()))
}

// TestObjectsByKey: a key, or the beginning of one, is found by the primary key, with or without a bucket.
func TestObjectsByKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.exec(t, `INSERT INTO upcall.rollup_objects (generation, bucket, object_key, uploads, sources, first_at, first_id, first_mime_type,
			first_source, received_at, event_id, hourly_mime_type, source)
		SELECT 0, 'b' || n % 2, 'a/' || n, 1, 1, now(), gen_random_uuid(), '', 'callback', now(), gen_random_uuid(), '', 'callback'
		FROM generate_series(1, 20000) n`)
	w.exec(t, "ANALYZE upcall.rollup_objects")
	prefix := "object_key ^@ 'a/77'"
	if w.number(t, "SELECT current_setting('server_version_num')::int") < 150000 {
		prefix = "object_key LIKE 'a/77%'" // it uses no index there
	}
	for _, where := range []string{
		"object_key = 'a/77'", "bucket = 'b1' AND object_key = 'a/77'", "object_key LIKE 'a/77%'", prefix,
		"object_key >= 'a/77' AND object_key < 'a/78'", "bucket = 'b1' AND object_key LIKE 'a/77%'",
	} {
		var read, found int
		plan := w.lines(t, "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) SELECT * FROM upcall.uploads WHERE "+where)
		err := w.pool.QueryRow(context.Background(), "SELECT count(*) FROM upcall.uploads WHERE "+where).Scan(&found)
		for _, line := range plan {
			if _, after, ok := strings.Cut(line, "Rows Removed by Filter: "); ok {
				_, _ = fmt.Sscan(after, &read)
			}
		}
		if err != nil || found == 0 || read > 200 {
			t.Errorf("%s: %d rows, %d read in vain, %v:\n%s", where, found, read, err, plan)
		}
	}
}
