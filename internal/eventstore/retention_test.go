package eventstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/dbtest"
	"upcall/internal/event"
	"upcall/internal/testing/wait"
)

// monthsAgo returns the middle of a past month, by the real time, which PostgreSQL has.
func monthsAgo(n int) time.Time { return monthOf(time.Now()).AddDate(0, -n, 14) }

// monthNames returns the partitions of these months.
func monthNames(ago ...int) []string {
	names := []string{}
	for _, n := range ago {
		names = append(names, partitionName(monthsAgo(n)))
	}
	return names
}

func eventAt(t time.Time) *event.Event {
	e := smallEvent()
	e.ReceivedAt = t
	return e
}

func number(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) int {
	t.Helper()
	var n int
	if err := pool.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

func dropped(t *testing.T, pool *pgxpool.Pool, now time.Time, days int, want ...int) Dropped {
	t.Helper()
	d, err := DropExpired(t.Context(), pool, now, days)
	if err != nil {
		t.Fatal(err)
	}
	var months []string
	for _, n := range want {
		months = append(months, monthsAgo(n).Format("2006_01"))
	}
	if diff := cmp.Diff(months, d.Months); diff != "" {
		t.Errorf("dropped (-want +got):\n%s", diff)
	}
	return d
}

func wantPartitions(t *testing.T, pool *pgxpool.Pool, want ...int) {
	t.Helper()
	if diff := cmp.Diff(monthNames(want...), append([]string{}, partitions(t, pool)...)); diff != "" {
		t.Errorf("partitions (-want +got):\n%s", diff)
	}
	if n := number(t, pool, "SELECT count(*) FROM pg_class WHERE relname LIKE 'expired_events%'"); n != 0 {
		t.Errorf("%d detached tables are left", n)
	}
}

func TestMonthsAreDropped(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	recorder := newRecorder(t, Config{Pool: pool})
	oldest, old, kept := eventAt(monthsAgo(5)), eventAt(monthsAgo(4)), eventAt(monthsAgo(1))
	oldest.UploadID, kept.UploadID = uuid.NullUUID{UUID: uuid.New(), Valid: true}, uuid.NullUUID{UUID: uuid.New(), Valid: true}
	for _, e := range []*event.Event{oldest, old, kept} {
		record(t, recorder, e, false)
	}
	execute(t, pool, fmt.Sprintf(`INSERT INTO upcall.refused_callbacks (digest, reason, refused_at)
		SELECT gen_random_uuid(), 'old', now() - interval '91 days' FROM generate_series(1, %d)
		UNION ALL SELECT gen_random_uuid(), 'new', now()`, trimStep+1))

	for range 3 {
		record(t, recorder, oldest, true)
		if d := dropped(t, pool, time.Now(), 3650); d.Refusals != 0 || d.IDs != 0 {
			t.Errorf("dropped %+v, but nothing is that old", d)
		}
	}
	// One month each time, the oldest first.
	if d := dropped(t, pool, time.Now(), 90, 5); d.IDs != 1 || d.Refusals != trimStep+1 {
		t.Errorf("dropped %d ids and %d refusals", d.IDs, d.Refusals)
	}
	wantPartitions(t, pool, 4, 1)
	dropped(t, pool, time.Now(), 90, 4)
	for range 2 {
		dropped(t, pool, time.Now(), 90)
	}
	wantPartitions(t, pool, 1)
	wantCount(t, pool, 1)
	record(t, recorder, kept, true)
	if n := number(t, pool, "SELECT count(*) FROM upcall.callback_ids"); n != 1 {
		t.Errorf("%d ids, want only that of the kept event", n)
	}

	// A late event, for example from a spool, makes its month again.
	late := eventAt(monthsAgo(5))
	record(t, recorder, late, false)
	record(t, recorder, late, true)
	wantPartitions(t, pool, 5, 1)
	wantCount(t, pool, 2)
	dropped(t, pool, time.Now(), 90, 5) // because that has expired, too
	wantCount(t, pool, 1)
}

// TestMonthsEnd checks that a month is dropped when its last instant is old enough, no sooner.
func TestMonthsEnd(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	recorder := newRecorder(t, Config{Pool: pool})
	record(t, recorder, eventAt(monthsAgo(5)), false)
	end := monthOf(monthsAgo(4)) // of the month before
	dropped(t, pool, end.AddDate(0, 0, MinRetention).Add(-time.Microsecond), MinRetention)
	dropped(t, pool, end.AddDate(0, 0, MinRetention).In(time.FixedZone("", -12*3600)), MinRetention, 5)
}

func TestClocks(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	recorder := newRecorder(t, Config{Pool: pool})
	for _, ago := range []int{5, 1} {
		record(t, recorder, eventAt(monthsAgo(ago)), false)
	}
	future := eventAt(time.Now().AddDate(20, 0, 0)) // recorded while the clock was wrong
	record(t, recorder, future, false)
	all := partitions(t, pool)

	dropped(t, pool, time.Now().AddDate(-30, 0, 0), MinRetention) // a clock behind drops nothing
	if diff := cmp.Diff(all, partitions(t, pool)); diff != "" {
		t.Error(diff)
	}
	dropped(t, pool, time.Now().AddDate(30, 0, 0), 90, 5) // a clock ahead drops what has expired by PostgreSQL's clock
	dropped(t, pool, time.Now().AddDate(30, 0, 0), 90)
	if diff := cmp.Diff(all[1:], partitions(t, pool)); diff != "" {
		t.Error(diff)
	}
	record(t, recorder, future, true)

	day := func(s string) time.Time {
		at, err := time.Parse(time.DateOnly, s)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	for _, tt := range []struct{ ours, theirs, want string }{
		{"2026-11-22", "2026-11-22", "2026-10-22"},
		{"2056-11-22", "2026-11-22", "2026-10-22"},
		{"2026-11-22", "2056-11-22", "2026-10-22"},
		{"1970-01-01", "2026-11-22", "1969-12-01"},
		{"2028-03-31", "2028-03-31", "2028-02-29"},
	} {
		if got := expiry(day(tt.ours), day(tt.theirs), 31); !got.Equal(day(tt.want)) {
			t.Errorf("%s and %s: %s, want %s", tt.ours, tt.theirs, got, tt.want)
		}
	}
	for _, days := range []int{-1, 0, MinRetention - 1} {
		_, err := DropExpired(t.Context(), pool, time.Now(), days)
		if want := fmt.Sprintf("%d days are less than %d", days, MinRetention); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d days: %v", days, err)
		}
	}
}

// TestStrangersTablesStay checks that tables that someone else detached or made are kept.
func TestStrangersTablesStay(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	recorder := newRecorder(t, Config{Pool: pool})
	record(t, recorder, eventAt(monthsAgo(9)), false)
	execute(t, pool, "ALTER TABLE upcall.upload_events DETACH PARTITION upcall."+partitionName(monthsAgo(9)))
	execute(t, pool, "CREATE TABLE upcall.upload_events_2001_13 (x int)")
	execute(t, pool, "CREATE TABLE upcall.upload_events_2001_01_mine (x int)")
	execute(t, pool, "CREATE TABLE upcall.expired_events_ (x int)")
	dropped(t, pool, time.Now(), 90)
	if n := number(t, pool, `SELECT count(*) FROM pg_class
		WHERE relkind = 'r' AND relnamespace = 'upcall'::regnamespace AND relname ~ '^(upload|expired)_events_'`); n != 4 {
		t.Errorf("%d of 4 tables are left", n)
	}
}

// TestDetachBlocksNothing makes a detach wait for a reader. Meanwhile callbacks are recorded, new
// months are made, and a late event gets ErrExpiring at once. The interrupted detach is resumed.
func TestDetachBlocksNothing(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	recorder := newRecorder(t, Config{Pool: pool, MaxBatch: 8})
	for _, ago := range []int{5, 0} {
		record(t, recorder, eventAt(monthsAgo(ago)), false)
	}
	reading, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer reading.Rollback(context.Background())
	if _, err := reading.Exec(t.Context(), "SELECT count(*) FROM upcall.upload_events"); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var waiting sync.WaitGroup
	waiting.Go(func() {
		if _, err := DropExpired(ctx, pool, time.Now(), 90); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want a wait for the reader", err)
		}
	})
	const isPending = "SELECT count(*) FROM pg_inherits WHERE inhdetachpending"
	wait.Until(t, "a partition is pending", func() bool { return number(t, pool, isPending) == 1 })

	// All of these are bounded by a lock_timeout and would fail if they waited.
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			for range 20 {
				if _, err := recorder.Record(t.Context(), smallEventNow()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	late := eventAt(monthsAgo(5))
	group.Go(func() { // in batches with other events, which must be recorded
		for range 20 {
			if _, err := recorder.Record(t.Context(), late); !errors.Is(err, event.ErrExpiring) || !errors.Is(err, event.ErrUnavailable) ||
				errors.Is(err, event.ErrUnstorable) {
				t.Errorf("late event: got %v, want event.ErrExpiring", err)
			}
		}
	})
	group.Wait()
	if err := EnsurePartitions(t.Context(), pool, time.Now().AddDate(1, 0, 0)); err != nil {
		t.Errorf("months ahead: %v", err)
	}
	dropped(t, pool, time.Now(), 90)                                                   // another receiver does nothing meanwhile
	if n := number(t, pool, "SELECT count(*) FROM upcall.upload_events"); n != 1+320 { // without the pending month
		t.Errorf("%d events, want 321", n)
	}

	cancel()
	waiting.Wait()
	if n := number(t, pool, isPending); n != 1 {
		t.Fatalf("%d partitions are pending, want the interrupted one", n)
	}
	if err := reading.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The closed connection may hold its lock for another moment.
	wait.Until(t, "it is dropped", func() bool {
		d, err := DropExpired(t.Context(), pool, time.Now(), 90)
		if err != nil {
			t.Fatal(err)
		}
		return len(d.Months) == 1
	})
	record(t, recorder, late, false)
	wantCount(t, pool, 1+320+1)
}

func smallEventNow() *event.Event { return eventAt(time.Now()) }

// TestResumes checks that the next run finishes after an interruption at any step. An id that
// came again in the meantime stays.
func TestResumes(t *testing.T) {
	t.Parallel()
	name, expired := partitionName(monthsAgo(5)), month{begins: monthOf(monthsAgo(5))}.expiredName()
	mark := "COMMENT ON TABLE upcall." + name + " IS '" + expiredMark + "'"
	detach := "ALTER TABLE upcall.upload_events DETACH PARTITION upcall." + name
	rename := "ALTER TABLE upcall." + name + " RENAME TO " + expired
	for what, steps := range map[string][]string{
		"marked":                 {mark},
		"detached":               {mark, detach},
		"renamed":                {mark, detach, rename},
		"with a default":         {"CREATE TABLE upcall.other PARTITION OF upcall.upload_events DEFAULT"},
		"marked, with a default": {"CREATE TABLE upcall.other PARTITION OF upcall.upload_events DEFAULT", mark},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			pool := dbtest.Pool(t, Open)
			recorder := newRecorder(t, Config{Pool: pool})
			gone, again := eventAt(monthsAgo(5)), eventAt(monthsAgo(5))
			record(t, recorder, gone, false)
			record(t, recorder, again, false)
			for _, step := range steps {
				execute(t, pool, step)
			}
			execute(t, pool, fmt.Sprintf("DELETE FROM upcall.callback_ids WHERE id = '%s'", again.ID))
			again.ReceivedAt = time.Now()
			record(t, recorder, again, false)
			if d := dropped(t, pool, time.Now(), 90, 5); d.IDs != 1 {
				t.Errorf("deleted %d ids, want 1", d.IDs)
			}
			record(t, recorder, again, true)
			wantCount(t, pool, 1)
			if n := number(t, pool, "SELECT count(*) FROM pg_class WHERE relname IN ($1, $2)", name, expired); n != 0 {
				t.Errorf("%d tables are left", n)
			}
		})
	}
}

// TestLateEventMeanwhile makes a month again before the old one is dropped, and then drops both.
func TestLateEventMeanwhile(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	recorder := newRecorder(t, Config{Pool: pool})
	record(t, recorder, eventAt(monthsAgo(5)), false)
	name := partitionName(monthsAgo(5))
	execute(t, pool, "COMMENT ON TABLE upcall."+name+" IS '"+expiredMark+"'")
	execute(t, pool, "ALTER TABLE upcall.upload_events DETACH PARTITION upcall."+name)
	late := eventAt(monthsAgo(5))
	record(t, recorder, late, false) // attaches the old one again, so nothing is lost
	wantCount(t, pool, 2)
	execute(t, pool, "ALTER TABLE upcall.upload_events DETACH PARTITION upcall."+name)
	execute(t, pool, "ALTER TABLE upcall."+name+" RENAME TO "+month{begins: monthOf(monthsAgo(5))}.expiredName())
	later := eventAt(monthsAgo(5))
	record(t, recorder, later, false) // makes a new one beside it
	if n := number(t, pool, "SELECT count(*) FROM upcall.upload_events"); n != 1 {
		t.Errorf("%d events, want the latest", n)
	}
	dropped(t, pool, time.Now(), 90, 5, 5)
	if n := number(t, pool, "SELECT count(*) FROM upcall.callback_ids"); n != 0 {
		t.Errorf("%d ids are left", n)
	}
	wantPartitions(t, pool)
}

// TestManyIDs deletes more than one step of ids with the same time, from several receivers at once.
func TestManyIDs(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	old := monthsAgo(5)
	if err := ensureMonths(t.Context(), pool, []time.Time{old, time.Now()}); err != nil {
		t.Fatal(err)
	}
	const rows = 2*trimStep + 17
	for _, at := range []time.Time{old, time.Now()} {
		if _, err := pool.Exec(t.Context(), `
			WITH made AS (INSERT INTO upcall.upload_events (id, received_at, source)
				SELECT gen_random_uuid(), $1, 'test' FROM generate_series(1, $2) RETURNING id, received_at)
			INSERT INTO upcall.callback_ids (upload_id, id, received_at)
			SELECT '00000000-0000-0000-0000-000000000000', id, received_at FROM made`, at, rows); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	ids, months := 0, 0
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			d, err := DropExpired(t.Context(), pool, time.Now(), 90)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			ids, months = ids+d.IDs, months+len(d.Months)
		})
	}
	group.Wait()
	if ids != rows || months != 1 {
		t.Errorf("dropped %d ids and %d months, want %d and 1", ids, months, rows)
	}
	if n := number(t, pool, "SELECT count(*) FROM upcall.callback_ids JOIN upcall.upload_events USING (id, received_at)"); n != rows {
		t.Errorf("%d events with their ids are left, want %d", n, rows)
	}
}

func TestDropExpiredWithoutDatabase(t *testing.T) {
	t.Parallel()
	pool := dbtest.Open(t, "postgres://nobody@127.0.0.1:1/none", Open)
	if _, err := DropExpired(t.Context(), pool, time.Now(), 90); !errors.Is(err, event.ErrUnavailable) {
		t.Errorf("got %v, want event.ErrUnavailable", err)
	}
	refusals, err := NewRefusals(pool, 1)
	if err != nil {
		t.Fatal(err)
	}
	err = refusals.Keep(t.Context(), []event.RefusedCallback{{Digest: uuid.New(), Reason: "x"}})
	if !errors.Is(err, event.ErrUnavailable) {
		t.Errorf("got %v, want event.ErrUnavailable", err)
	}
}
