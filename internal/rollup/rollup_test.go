package rollup

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"upcall/internal/testing/wait"
)

// addRandom commits events of the last days as the recorder does: late ones, overwrites, repeats by
// other sources, rows without bucket or key, and types in several spellings.
func (w *world) addRandom(t testing.TB, random *rand.Rand, n int) {
	t.Helper()
	if err := w.tryRandom(random, n); err != nil {
		t.Fatal(err)
	}
}

func (w *world) tryRandom(random *rand.Rand, n int) error {
	types := []any{"image/jpeg", "IMAGE/JPG", "image/png", "text/plain; charset=utf-8", " Text/Plain", nil, ""}
	sources := []string{"callback", "callback", "callback", "notification", "reconcile"}
	now := time.Now().Truncate(time.Microsecond)
	for done := 0; done < n; {
		size := min(1+random.IntN(40), n-done)
		done += size
		var batch pgx.Batch // is a transaction
		for range size {
			bucket, key := any(fmt.Sprintf("bucket-%d", random.IntN(2))), any(fmt.Sprintf("键/%d", 1+2*random.IntN(w.keys/2)))
			number := random.IntN(8)
			request, etag, upload := any(fmt.Sprintf("R%d", number)), any(fmt.Sprintf("E%X", number%2)), any(nil)
			if object := random.IntN(w.keys); object%2 == 0 { // was issued, and each upload may be made twice
				key, upload = fmt.Sprintf("键/%d", object), uuid.NewSHA1(uuid.Nil, fmt.Append(nil, object, number%4))
				etag = []any{etag, fmt.Sprintf(`"e%x"`, number%2)}[random.IntN(2)]
			}
			switch random.IntN(12) {
			case 0:
				bucket = nil
			case 1:
				key = nil
			case 2:
				request = nil
			}
			var bytes any
			if random.IntN(5) > 0 {
				bytes = random.Int64()
			}
			at := now.Add(-time.Duration(random.Int64N(int64(w.span))).Truncate(time.Microsecond))
			if random.IntN(4) == 0 {
				at = at.Truncate(time.Hour) // so that several are at the same moment
			}
			batch.Queue(`INSERT INTO upcall.upload_events
				(id, received_at, bucket, object_key, size, mime_type, request_id, source, etag, crc64, vars, upload_id)
				VALUES (gen_random_uuid(), $1, $2, $3, $4, nullif($5, ''), $6, $7, $8, $9::bigint,
					jsonb_build_object('uid', $10::int), $11)`,
				at, bucket, key, bytes, types[random.IntN(len(types))], request, sources[random.IntN(len(sources))],
				etag, random.Int64(), random.IntN(100), upload)
		}
		if err := w.pool.SendBatch(context.Background(), &batch).Close(); err != nil {
			return fmt.Errorf("add events: %w", err)
		}
	}
	return nil
}

func seeded(t testing.TB) *rand.Rand {
	s := rand.Uint64()
	t.Logf("seed %d", s)
	return rand.New(rand.NewPCG(s, 0))
}

// TestEqualsThePlainQuery: whatever the order of arrival, and with pages that end anywhere.
func TestEqualsThePlainQuery(t *testing.T) {
	t.Parallel()
	w, random := newWorld(t), seeded(t)
	worker, run := w.worker(t, time.Minute)
	run()
	for range 5 {
		w.addRandom(t, random, 300)
		w.caughtUp(t, worker)
		w.compare(t)
	}
}

// TestKilled: workers end in the middle of batches, and leases are lost while they work.
func TestKilled(t *testing.T) {
	t.Parallel()
	w, random := newWorld(t), seeded(t)
	w.addRandom(t, random, 500)
	for range 10 {
		_, run := w.worker(t, 200*time.Millisecond)
		stop := run()
		w.addRandom(t, random, 60)
		if random.IntN(2) == 0 {
			w.exec(t, "UPDATE upcall.feed_consumers SET lease_holder = 'another', lease_until = now() + interval '100 ms'")
		}
		w.addRandom(t, random, 60)
		stop()
	}
	worker, run := w.worker(t, time.Second)
	run()
	w.caughtUp(t, worker)
	w.compare(t)
}

// TestRebuild: a generation is built while events come and the current one is there.
func TestRebuild(t *testing.T) {
	t.Parallel()
	w, random := newWorld(t), seeded(t)
	worker, run := w.worker(t, time.Second)
	run()
	w.addRandom(t, random, 500)
	w.caughtUp(t, worker)
	for range 3 {
		w.exec(t, "UPDATE upcall.rollup_hourly SET uploads = uploads + 1")
		w.exec(t, "DELETE FROM upcall.rollup_objects WHERE object_key LIKE '%7'")
		if err := Rebuild(t.Context(), w.pool); err != nil {
			t.Fatal(err)
		}
		w.addRandom(t, random, 300)
		w.rebuilt(t, worker)
		w.addRandom(t, random, 100)
		w.caughtUp(t, worker)
		w.compare(t)
	}
	wait.Until(t, "the former generation is deleted", func() bool {
		return w.number(t, `SELECT (SELECT count(DISTINCT generation) FROM upcall.rollup_hourly)
			+ (SELECT count(DISTINCT generation) FROM upcall.rollup_objects)
			+ (SELECT count(DISTINCT generation) FROM upcall.rollup_versions)`) == 3
	})
}
