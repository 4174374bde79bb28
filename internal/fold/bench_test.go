package fold

import (
	"testing"
	"time"

	"upcall/internal/eventstore"
)

// BenchmarkKnown settles notifications whose callbacks have come, as nearly all have; the unit is a notification.
func BenchmarkKnown(b *testing.B) {
	w := newWorld(b, func(c *Config) { c.Grace = 0 })
	for month := range 24 {
		if err := eventstore.EnsurePartitions(b.Context(), w.pool, noon.AddDate(0, -month, 0)); err != nil {
			b.Fatal(err)
		}
	}
	w.exec(b, `INSERT INTO upcall.upload_events (id, received_at, bucket, object_key, etag, request_id, upload_id, source)
		SELECT gen_random_uuid(), $2::timestamptz - n * interval '1 minute', 'demo', 'k' || n, 'E', 'R' || n, gen_random_uuid(), 'callback'
		FROM generate_series(1, $1) AS n`, b.N, noon)
	w.exec(b, "INSERT INTO upcall.callback_ids (upload_id, id, received_at) SELECT upload_id, id, received_at FROM upcall.upload_events")
	w.exec(b, `INSERT INTO upcall.notifications (id, received_at, bucket, object_key, etag, request_id, upload_id, vars, source, noticed_at)
		SELECT gen_random_uuid(), received_at, bucket, object_key, etag, request_id, upload_id, vars, 'notification', $1
		FROM upcall.upload_events`, noon.Add(-time.Minute))
	w.exec(b, "ANALYZE upcall.upload_events, upcall.callback_ids, upcall.notifications")
	b.ResetTimer()
	w.fold(b)
	b.StopTimer()
	if n := counted(b, w.Worker, "known"); n != float64(b.N) {
		b.Errorf("%v were known, want %d", n, b.N)
	}
}
