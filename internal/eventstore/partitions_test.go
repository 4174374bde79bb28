package eventstore

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/dbtest"
)

func partitions(t *testing.T, pool *pgxpool.Pool) []string {
	t.Helper()
	rows, err := pool.Query(t.Context(), `SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = 'upcall.upload_events'::regclass`)
	if err != nil {
		t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

func TestPartitionsAreMadeAhead(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	var group sync.WaitGroup
	for range 10 {
		group.Go(func() {
			// December in the local time zone, November in UTC.
			now := time.Date(2026, 12, 1, 3, 0, 0, 0, time.FixedZone("", 8*3600))
			if err := EnsurePartitions(t.Context(), pool, now); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	want := []string{"upload_events_2026_10", "upload_events_2026_11", "upload_events_2026_12", "upload_events_2027_01"}
	if diff := cmp.Diff(want, partitions(t, pool)); diff != "" {
		t.Error(diff)
	}
	// A month later there is one more, with all indexes.
	if err := EnsurePartitions(t.Context(), pool, time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)); err != nil {
		t.Fatal(err)
	}
	want = append(want, "upload_events_2027_02")
	if diff := cmp.Diff(want, partitions(t, pool)); diff != "" {
		t.Error(diff)
	}
	var indexes, invalid int
	if err := pool.QueryRow(t.Context(), `SELECT count(*), count(*) FILTER (WHERE NOT indisvalid) FROM pg_index
		WHERE indrelid = 'upcall.upload_events_2027_02'::regclass`).Scan(&indexes, &invalid); err != nil || indexes != 3 || invalid != 0 {
		t.Errorf("%d indexes, %d of them invalid, %v; want 3 and 0", indexes, invalid, err)
	}
	err := pool.QueryRow(t.Context(), `SELECT count(*) FROM pg_index
		WHERE indrelid = 'upcall.upload_events'::regclass AND NOT indisvalid`).Scan(&invalid)
	if err != nil || invalid != 0 {
		t.Errorf("%d indexes of the parent are invalid, %v", invalid, err)
	}
}

func TestMissingPartitionIsMade(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	w := newWriter(patient(Config{Pool: dbtest.Beside(t, pool, OpenRecorder)}).withDefaults(), eventKind)
	// The last instant of a month and the first of the next, in one batch.
	before, after := smallEvent(), smallEvent()
	before.ReceivedAt = time.Date(2026, 11, 30, 23, 59, 59, 999_999_999, time.UTC)
	after.ReceivedAt = time.Date(2026, 12, 1, 1, 0, 0, 0, time.FixedZone("", 3600))
	if diff := cmp.Diff([]string{"new", "new"}, answersOf(w, requests(t, before, after))); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"upload_events_2026_11", "upload_events_2026_12"}, partitions(t, pool)); diff != "" {
		t.Error(diff)
	}
	// The same callback again in another month.
	again := *before
	again.ReceivedAt = time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	if diff := cmp.Diff([]string{"duplicate"}, answersOf(w, requests(t, &again))); diff != "" {
		t.Error(diff)
	}
	wantCount(t, pool, 2)
}

// TestPartitionsAreMadeBesideInserts checks that making a partition and recording do not block
// each other.
func TestPartitionsAreMadeBesideInserts(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	if err := EnsurePartitions(t.Context(), pool, at); err != nil {
		t.Fatal(err)
	}
	inserting, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer inserting.Rollback(context.Background())
	const insert = "INSERT INTO upcall.upload_events (id, received_at, source) VALUES (gen_random_uuid(), $1, 'test')"
	if _, err := inserting.Exec(t.Context(), insert, at); err != nil {
		t.Fatal(err)
	}
	making, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer making.Rollback(context.Background())
	if err := makePartition(t.Context(), making, time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)); err != nil {
		t.Errorf("make a partition beside an insert: %v", err)
	}
	// Both transactions are still open; lock_timeout would end a wait.
	record(t, newRecorder(t, Config{Pool: pool}), smallEvent(), false)
}
