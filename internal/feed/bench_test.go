package feed

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"testing"
	"time"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
)

func benchmarkLog(b *testing.B) (*Log, func(n int)) {
	b.Helper()
	url := dbtest.URL(b)
	pool := dbtest.Open(b, url, eventstore.Open)
	if err := eventstore.EnsurePartitions(b.Context(), pool, time.Now()); err != nil {
		b.Fatal(err)
	}
	log, err := New(Config{Pool: dbtest.Open(b, url, eventstore.OpenFeed), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { log.Run(ctx); close(done) }()
	b.Cleanup(func() { stop(); <-done })
	return log, func(n int) {
		if _, err := pool.Exec(b.Context(), `
			INSERT INTO upcall.upload_events (id, received_at, bucket, object_key, etag, size, mime_type, crc64, request_id, operation,
				upload_id, vars, source)
			SELECT gen_random_uuid(), now() + n * interval '1 microsecond', 'demo-bucket', 'photos/2026/11/27/' || n || '.jpg',
				'D41D8CD98F00B204E9800998ECF8427E', 123456, 'image/jpeg', 13204838721388374938, '5C9E2E4B3FDA3C2F1A7A3F12', 'PutObject',
				gen_random_uuid(), '{"user": "4711", "session": "f3a9"}', 'callback'
			FROM generate_series(1, $1) AS n`, n); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPage reads the log a thousand entries at a time; the unit is an entry.
func BenchmarkPage(b *testing.B) { benchmarkPages(b, 0) }

// BenchmarkPageRecovered does so with many recovered uploads, none of which is among the entries.
func BenchmarkPageRecovered(b *testing.B) { benchmarkPages(b, 100_000) }

func benchmarkPages(b *testing.B, recovered int) {
	log, add := benchmarkLog(b)
	if _, err := log.config.Pool.Exec(b.Context(), `
		INSERT INTO upcall.recovered_uploads (event_id, received_at, source, etag, request_id, upload_id, recovered_at)
		SELECT gen_random_uuid(), now(), 'notification', 'E', 'R' || n, gen_random_uuid(), now() - n * interval '10 seconds'
		FROM generate_series(1, $1) AS n`, recovered); err != nil {
		b.Fatal(err)
	}
	start, err := log.Now(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	add(50_000)
	after := start
	b.ReportAllocs()
	for n := 0; n < b.N; {
		page, err := log.Page(b.Context(), after, mostEntries)
		if err != nil {
			b.Fatal(err)
		}
		n += len(page.Entries)
		if after = page.Next; len(page.Entries) == 0 {
			after = start
		}
	}
}

// BenchmarkNext is the time from a commit to its delivery, when the receiver itself recorded
// the event, and when it learns of it by asking.
func BenchmarkNext(b *testing.B) {
	for name, wakes := range map[string]bool{"woken": true, "polled": false} {
		b.Run(name, func(b *testing.B) {
			log, add := benchmarkLog(b)
			after, err := log.Now(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			var waited time.Duration
			n := 0
			for b.Loop() {
				n++
				committed := make(chan time.Time, 1)
				time.AfterFunc(time.Duration(7*n%25)*time.Millisecond, func() {
					add(1)
					committed <- time.Now()
					if wakes {
						log.Wake()
					}
				})
				page, err := log.Next(b.Context(), after, 10)
				if err != nil {
					b.Fatal(err)
				}
				waited += time.Since(<-committed)
				after = page.Next
			}
			b.ReportMetric(float64(waited.Microseconds())/float64(n)/1000, "ms/delivery")
		})
	}
}

// BenchmarkFindings is what the place for findings costs a page while there are none: the unit is a page,
// read by one who wants events alone and one who wants both, in turns.
func BenchmarkFindings(b *testing.B) {
	for _, limit := range []int{1, 100, mostEntries} {
		b.Run(strconv.Itoa(limit), func(b *testing.B) {
			log, add := benchmarkLog(b)
			start, err := log.Now(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			add(10 * mostEntries)
			took := make(map[reading][]time.Duration)
			for b.Loop() {
				for _, what := range []reading{recorded, all} {
					began := time.Now()
					if _, _, err := log.read(b.Context(), start, limit, what); err != nil {
						b.Fatal(err)
					}
					took[what] = append(took[what], time.Since(began))
				}
			}
			for unit, what := range map[string]reading{"µs/events": recorded, "µs/both": all} {
				slices.Sort(took[what])
				b.ReportMetric(float64(took[what][len(took[what])/10].Microseconds()), unit) // a machine's other work apart
			}
		})
	}
}
