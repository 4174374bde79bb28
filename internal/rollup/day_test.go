package rollup

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/testing/wait"
)

const (
	// plainStatus is the plain query behind upload_status.
	plainStatus = counted + `, used AS (
			SELECT u.upload_id, u.bucket, u.object_key, u.issued_at, u.expires_at, count(c.id) AS events, min(c.received_at) AS first_at
			FROM upcall.issued_uploads u LEFT JOIN counted c ON c.upload_id = u.upload_id GROUP BY u.upload_id
		), status AS (
			SELECT u.*, r.revoked_at, CASE WHEN r.revoked_at IS NOT NULL THEN 'revoked' WHEN events > 0 THEN 'uploaded'
					WHEN expires_at <= now() THEN 'expired' ELSE 'issued' END AS status,
				events > 1 OR events = 1 AND EXISTS (
					SELECT FROM placed later WHERE later.placed AND later.last = 1
						AND later.bucket = u.bucket AND later.object_key = u.object_key
						AND later.upload_id IS DISTINCT FROM u.upload_id AND later.received_at >= u.first_at) AS overwritten,
				first_at - issued_at AS took
			FROM used u LEFT JOIN upcall.revoked_uploads r USING (upload_id)
		)`
	plainFunnel = plainStatus + `
		SELECT concat_ws(' ', day, coalesce(bucket, '-'), count(*) FILTER (WHERE issued), count(*) FILTER (WHERE events > 0),
			count(*) FILTER (WHERE status = 'issued'), count(*) FILTER (WHERE status = 'expired'),
			count(*) FILTER (WHERE status = 'revoked'),
			count(*) FILTER (WHERE overwritten), count(*) FILTER (WHERE NOT issued),
			percentile_cont(0.5) WITHIN GROUP (ORDER BY took), percentile_cont(0.95) WITHIN GROUP (ORDER BY took))
		FROM (
			SELECT (issued_at AT TIME ZONE 'UTC')::date AS day, bucket, true AS issued, status, events, overwritten, took FROM status
			UNION ALL
			SELECT (received_at AT TIME ZONE 'UTC')::date, bucket, false, NULL, NULL, NULL, NULL FROM counted c
			WHERE NOT EXISTS (SELECT FROM upcall.issued_uploads u WHERE u.upload_id = c.upload_id)
		) AS days GROUP BY day, bucket ORDER BY 1`
	viewFunnel = `
		SELECT concat_ws(' ', day, coalesce(bucket, '-'), issued, uploaded, pending, expired_unused, revoked, overwritten, unissued,
			median_time_to_upload, p95_time_to_upload) FROM upcall.upload_funnel ORDER BY 1`
	storedDays = "SELECT count(*) FROM upcall.rollup_days WHERE stored"
)

// compareFunnel checks the views of issued uploads against the plain queries.
func (w *world) compareFunnel(t testing.TB, when string) {
	t.Helper()
	for name, q := range map[string][2]string{
		"upload_status": {plainStatus + `
			SELECT concat_ws(' ', upload_id, bucket, object_key, revoked_at, status,
				events, first_at, took, overwritten) FROM status ORDER BY 1`, `
			SELECT concat_ws(' ', upload_id, bucket, object_key, revoked_at, status, events, uploaded_at, time_to_upload, overwritten)
			FROM upcall.upload_status ORDER BY 1`},
		"upload_funnel": {plainFunnel, viewFunnel},
	} {
		if diff := cmp.Diff(w.lines(t, q[0]), w.lines(t, q[1])); diff != "" {
			t.Errorf("%s: %s (-plain query +view):\n%s", when, name, head(diff))
		}
	}
}

// An issuedUpload is what the ledger has of an upload.
type issuedUpload struct {
	id          uuid.UUID
	at          time.Time
	bucket, key string
}

// issue adds uploads to the ledger.
func (w *world) issue(t testing.TB, random *rand.Rand, n int, at func() time.Time) (issued []issuedUpload) {
	t.Helper()
	for range n {
		u := issuedUpload{uuid.New(), at(), fmt.Sprintf("bucket-%d", random.IntN(2)), fmt.Sprintf("键/%d", random.IntN(40))}
		// None expires while the test runs.
		expires := []time.Time{u.at.Add(time.Hour), time.Now().Add(-time.Minute), time.Now().Add(time.Hour), time.Now().Add(99 * time.Hour)}
		w.exec(t, `INSERT INTO upcall.issued_uploads (upload_id, issued_at, expires_at, bucket, object_key) VALUES ($1, $2, $3, $4, $5)`,
			u.id, u.at, expires[random.IntN(len(expires))], u.bucket, u.key)
		issued = append(issued, u)
	}
	return issued
}

// use records an event of an upload.
func (w *world) use(t testing.TB, u issuedUpload, at time.Time, source, request string) {
	t.Helper()
	w.exec(t, `WITH event AS (
			INSERT INTO upcall.upload_events (id, received_at, bucket, object_key, source, request_id, upload_id)
			VALUES (gen_random_uuid(), $1, $2, $3, $4, nullif($5, ''), $6) RETURNING id
		) INSERT INTO upcall.callback_ids (upload_id, id, received_at) SELECT $6, id, $1 FROM event`,
		at, u.bucket, u.key, source, request, u.id)
}

// useSome uses some uploads once, some again, and some are told of by several sources.
func (w *world) useSome(t testing.TB, random *rand.Rand, issued []issuedUpload) {
	t.Helper()
	for i, u := range issued {
		later := func() time.Time {
			at := u.at.Add(time.Duration(random.Int64N(int64(time.Since(u.at)) + 1))).Truncate(time.Microsecond)
			if random.IntN(4) == 0 {
				at = at.Truncate(time.Hour) // several at the same moment, and some before they were issued
			}
			return at
		}
		request := fmt.Sprintf("%s/%d", u.id, i)
		switch random.IntN(8) {
		case 0:
			w.use(t, u, later(), "callback", request)
			w.use(t, u, later(), "callback", "")
		case 1:
			w.use(t, u, later(), "notification", request)
		case 2:
			w.use(t, u, later(), "reconcile", request)
			w.use(t, u, later(), "callback", request)
		case 3, 4, 5:
			w.use(t, u, later(), "callback", request)
		}
	}
}

// stored waits until all days that are over are stored.
func (w *world) stored(t testing.TB, worker *Worker, least int) {
	t.Helper()
	wait.Until(t, "days are stored", func() bool {
		left, err := worker.daysLeft(context.Background(), "(NOT stored OR recheck)")
		if err != nil {
			t.Fatal(err)
		}
		return left == 0 && w.number(t, storedDays) >= least
	})
}

// revoke revokes uploads, and waits until that is noticed.
func (w *world) revoke(t testing.TB, issued ...issuedUpload) {
	t.Helper()
	for _, u := range issued {
		w.exec(t, "INSERT INTO upcall.revoked_uploads (upload_id, revoked_at) VALUES ($1, now()) ON CONFLICT DO NOTHING", u.id)
	}
	wait.Until(t, "revocations are noticed", func() bool {
		return w.number(t, `SELECT count(*) FROM upcall.revoked_uploads r JOIN upcall.issued_uploads u USING (upload_id)
			JOIN upcall.rollup_days d ON d.day = (u.issued_at AT TIME ZONE 'UTC')::date
			WHERE d.stored AND r.revoked_at > d.computed_at`) == 0
	})
}

// quick lets a worker store days soon. Its today does not end, not even when a test runs at midnight.
func quick(worker *Worker) *Worker {
	today := time.Now()
	worker.config.Now = func() time.Time { return today }
	worker.dayTimes = dayTimes{again: 50 * time.Millisecond, look: 50 * time.Millisecond, revoke: 200 * time.Millisecond}
	return worker
}

// funnelWorld has uploads that were issued in the last five days and today, some of them used.
func funnelWorld(t testing.TB) (*world, *rand.Rand, []issuedUpload) {
	w, random := newWorld(t), seeded(t)
	w.span = 5 * 24 * time.Hour
	w.partitions(t, time.Now().Add(-w.span))
	first := time.Now().Add(-w.span).Truncate(time.Microsecond) // so that five days are over, at any time of the day
	issued := w.issue(t, random, 1, func() time.Time { return first })
	issued = append(issued, w.issue(t, random, 250, func() time.Time {
		return time.Now().Add(-time.Duration(random.Int64N(int64(w.span)))).Truncate(time.Microsecond)
	})...)
	w.useSome(t, random, issued)
	w.addRandom(t, random, 100) // of no issued upload
	return w, random, issued
}

// TestFunnelEqualsThePlainQuery: before days are stored, when they are, and after late events,
// repeats, overwrites and revocations have changed them; and after they are built again.
func TestFunnelEqualsThePlainQuery(t *testing.T) {
	t.Parallel()
	w, random, issued := funnelWorld(t)
	w.revoke(t, issued[:20]...)
	worker, run := w.worker(t, time.Minute)
	quick(worker)
	stop := run()
	w.caughtUp(t, worker)
	w.compareFunnel(t, "at first")
	w.stored(t, worker, 5)
	w.compareFunnel(t, "stored")
	for i := range 4 {
		some := issued[random.IntN(len(issued)-20):][:20]
		w.useSome(t, random, some)
		w.addRandom(t, random, 10)
		w.caughtUp(t, worker)
		w.compareFunnel(t, fmt.Sprintf("changed %d", i))
		w.revoke(t, some[:5]...)
		w.compareFunnel(t, fmt.Sprintf("revoked %d", i))
		w.stored(t, worker, 5)
		w.compareFunnel(t, fmt.Sprintf("stored again %d", i))
	}
	stop()
	// Revocations and events while no receiver works.
	for _, u := range issued[30:35] {
		w.exec(t, "INSERT INTO upcall.revoked_uploads (upload_id, revoked_at) VALUES ($1, now()) ON CONFLICT DO NOTHING", u.id)
	}
	w.useSome(t, random, issued[60:80])
	worker, run = w.worker(t, time.Minute)
	quick(worker)
	run()
	w.caughtUp(t, worker)
	w.revoke(t)
	w.compareFunnel(t, "after a pause")

	w.stored(t, worker, 5)
	w.exec(t, "UPDATE upcall.rollup_funnel SET issued = issued + 1, overwritten = 0, median = '1 s'")
	if err := Rebuild(t.Context(), w.pool); err != nil {
		t.Fatal(err)
	}
	w.useSome(t, random, issued[100:120])
	w.rebuilt(t, worker)
	w.caughtUp(t, worker)
	w.compareFunnel(t, "built again")
	w.stored(t, worker, 5)
	w.compareFunnel(t, "built again and stored")
}

// TestOverwritesOfStoredDays: uploads of today replace those of other days, whose numbers change
// though they stay stored.
func TestOverwritesOfStoredDays(t *testing.T) {
	t.Parallel()
	w, random, _ := funnelWorld(t)
	worker, run := w.worker(t, time.Minute)
	quick(worker)
	run()
	w.caughtUp(t, worker)
	w.stored(t, worker, 5)
	stored := w.number(t, storedDays)
	version := w.number(t, "SELECT sum(version) FROM upcall.rollup_days")
	before := w.number(t, "SELECT sum(overwritten) FROM upcall.upload_funnel WHERE day < (now() AT TIME ZONE 'UTC')::date")
	for range 3 {
		for i, u := range w.issue(t, random, 60, func() time.Time { return time.Now().Truncate(time.Microsecond) }) {
			w.use(t, u, time.Now().Truncate(time.Microsecond), []string{"callback", "notification"}[i%2], u.id.String())
		}
		w.caughtUp(t, worker)
		w.compareFunnel(t, "overwritten")
	}
	after := w.number(t, "SELECT sum(overwritten) FROM upcall.upload_funnel WHERE day < (now() AT TIME ZONE 'UTC')::date")
	if n := w.number(t, storedDays); n != stored || after <= before ||
		version != w.number(t, "SELECT sum(version) FROM upcall.rollup_days") {
		t.Errorf("%d days are stored, want %d unchanged; %d uploads of those days are overwritten, want more than %d",
			n, stored, after, before)
	}
}

// TestMarkingReadsFewRows: marking days of a batch looks for each upload, whatever PostgreSQL knows of the
// tables, and does not read the whole ledger.
func TestMarkingReadsFewRows(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const number = "md5(n::text)::uuid"
	w.exec(t, "INSERT INTO upcall.issued_uploads (upload_id, issued_at, expires_at, bucket, object_key) SELECT "+number+
		", now() - interval '1 day', now(), 'b', n::text FROM generate_series(1, 50000) n")
	w.exec(t, "INSERT INTO upcall.upload_events (id, received_at, bucket, object_key, source, upload_id) SELECT "+number+
		", now(), 'b', n::text, 'callback', "+number+" FROM generate_series(1, 50000) n")
	w.exec(t, "INSERT INTO upcall.rollup_days (day) SELECT (now() AT TIME ZONE 'UTC')::date - n FROM generate_series(1, 30) n")
	w.exec(t, "ANALYZE upcall.upload_events, upcall.issued_uploads, upcall.rollup_days")
	conn, err := dbtest.Direct(t, w.pool, eventstore.Open).Acquire(t.Context())
	if err == nil {
		_, err = conn.Exec(t.Context(), "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_sort = off")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	for name, sql := range map[string]string{"xid8": markByXID, "timestamptz": markByTime} {
		prepare := fmt.Sprintf("PREPARE mark_%[1]s (%[1]s, uuid, %[1]s, uuid, uuid[], timestamptz[]) AS %[2]s", name, sql)
		if _, err := conn.Exec(t.Context(), prepare); err != nil {
			t.Fatal(err)
		}
		rows, err := conn.Query(t.Context(), "EXPLAIN EXECUTE mark_"+name+" (NULL, NULL, NULL, NULL, NULL, NULL)")
		if err != nil {
			t.Fatal(err)
		}
		plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if text := strings.Join(plan, "\n"); err != nil || !strings.Contains(text, "Index Cond: (upload_id = ") {
			t.Errorf("%v, the ledger is read as a whole:\n%s", err, text)
		}
	}
}

// TestCurrentAgain: an upload that was replaced is the current one again when what replaced it turns out
// to be an earlier upload.
func TestCurrentAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.partitions(t, time.Now().AddDate(0, 0, -1))
	worker, run := w.worker(t, time.Minute)
	run()
	now := time.Now().Truncate(time.Microsecond)
	u := issuedUpload{uuid.New(), now.AddDate(0, 0, -1), "b", "k"}
	w.exec(t, `INSERT INTO upcall.issued_uploads (upload_id, issued_at, expires_at, bucket, object_key) VALUES ($1, $2, $2, $3, $4)`,
		u.id, u.at, u.bucket, u.key)
	w.use(t, u, now, "callback", "first")
	w.caughtUp(t, quick(worker))
	w.stored(t, worker, 1)
	version := w.number(t, "SELECT sum(version) FROM upcall.rollup_days")
	for i, want := range []int{1, 0} {
		at := []time.Time{now.Add(time.Second), now.Add(-time.Second)}
		w.add(t, at[i], "k", "", []string{"notification", "callback"}[i], "second")
		w.caughtUp(t, worker)
		if n := w.number(t, "SELECT sum(overwritten) FROM upcall.upload_funnel"); n != want {
			t.Errorf("%d uploads are overwritten, want %d", n, want)
		}
		w.compareFunnel(t, "then")
	}
	if got := w.number(t, "SELECT sum(version) FROM upcall.rollup_days"); got != version {
		t.Error("the day was marked")
	}
}

// TestDayChangesWhileItIsComputed: what was computed is not stored.
func TestDayChangesWhileItIsComputed(t *testing.T) {
	t.Parallel()
	w, _, _ := funnelWorld(t)
	worker, run := w.worker(t, time.Minute)
	stop := run()
	w.caughtUp(t, quick(worker))
	w.stored(t, worker, 5)
	stop()
	w.exec(t, "UPDATE upcall.rollup_days SET stored = false, computed_at = NULL WHERE day = (SELECT min(day) FROM upcall.rollup_days)")
	stored := w.number(t, storedDays)
	tx, err := w.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := tx.Exec(t.Context(), "UPDATE upcall.rollup_days SET version = version + 1 WHERE NOT stored"); err != nil {
		t.Fatal(err)
	}
	kept := make(chan error)
	go func() { _, err := worker.keepDay(context.Background()); kept <- err }()
	wait.Until(t, "the day is computed", func() bool {
		return w.number(t, `SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
			WHERE NOT granted AND datname = current_database()`) > 0
	})
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-kept; !errors.Is(err, errDay) {
		t.Errorf("got %v, want errDay", err)
	}
	if n := w.number(t, storedDays); n != stored {
		t.Errorf("%d days are stored, want %d", n, stored)
	}
	if _, err := worker.keepDay(t.Context()); err != nil {
		t.Error(err)
	}
	w.compareFunnel(t, "computed again")
}

// TestDroppedDaysStay: retention leaves the days that are stored, and no late event makes them wrong.
func TestDroppedDaysStay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	old := time.Now().UTC().AddDate(0, -3, 0).Truncate(time.Hour)
	w.partitions(t, old)
	random := seeded(t)
	issued := w.issue(t, random, 30, func() time.Time { return old })
	w.useSome(t, random, issued)
	worker, run := w.worker(t, time.Minute)
	run()
	w.caughtUp(t, quick(worker))
	w.stored(t, worker, 1)
	want := w.lines(t, viewFunnel)
	for w.number(t, "SELECT count(*) FROM upcall.upload_events WHERE received_at < $1", old.AddDate(0, 1, 0)) > 0 {
		if _, err := eventstore.DropExpired(t.Context(), w.pool, time.Now(), 40); err != nil {
			t.Fatal(err)
		}
	}
	w.partitions(t, old) // as a late event does
	w.use(t, issued[0], old.Add(time.Minute), "callback", "late")
	w.exec(t, "UPDATE upcall.rollup_days SET recheck = true, version = 0")
	w.caughtUp(t, worker)
	if diff := cmp.Diff(want[:2], w.lines(t, viewFunnel)[:2]); diff != "" {
		t.Error(diff)
	}
}

// TestNoDays: while there is neither an event nor an upload, no day is over, whether months were dropped or not.
func TestNoDays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, dropped := range []string{"NULL", "now() - interval '2 months'"} {
		w.exec(t, "UPDATE upcall.feed_log SET dropped_before = "+dropped)
		var days int
		if err := w.pool.QueryRow(t.Context(), "SELECT count(*) FROM ("+overDays+") AS over", time.Now()).Scan(&days); err != nil || days != 0 {
			t.Errorf("dropped before %s: %d days, %v", dropped, days, err)
		}
	}
}
