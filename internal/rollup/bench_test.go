package rollup

import (
	"testing"
	"time"
)

// BenchmarkBacklog counts events of one transaction, in the order of their random ids, over 30 hours:
// three of four are new objects.
func BenchmarkBacklog(b *testing.B) {
	const events = 60_000
	for b.Loop() {
		b.StopTimer()
		w := newWorld(b)
		w.exec(b, `INSERT INTO upcall.upload_events
				(id, received_at, bucket, object_key, etag, size, mime_type, crc64, request_id, source, vars)
			SELECT gen_random_uuid(), now() - random() * interval '30 hours', 'bucket-' || n % 3,
				'uploads/2026/' || md5((n % $1)::text) || '.jpg', upper(md5(n::text)), n,
				(ARRAY['image/jpeg', 'image/png', 'video/mp4'])[1 + n % 3],
				n, upper(left(md5('r' || n), 24)), 'callback', jsonb_build_object('uid', n % 1000, 'album', md5(n::text))
			FROM generate_series(1, $2::int) n`, events*3/4, events)
		_, run := w.worker(b, time.Minute)
		b.StartTimer()
		began := time.Now()
		stop := run()
		for w.number(b, "SELECT coalesce(sum(uploads), 0) FROM upcall.rollup_hourly") < events {
			time.Sleep(20 * time.Millisecond)
		}
		took := time.Since(began)
		b.StopTimer()
		stop()
		w.compare(b)
		b.ReportMetric(events/took.Seconds(), "rows/s")
		b.StartTimer()
	}
}
