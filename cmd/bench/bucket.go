package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/eventstore"
	"upcall/internal/reconcile"
)

const (
	benchBucket = "photos"
	// blockSize is how many objects differ in the same way: of each, five have vanished, three are missing,
	// one was never issued, and one is too old.
	blockSize = 10_000
	perDir    = 100_000
)

// A bucket is one that is computed: object i has a key, and is of a kind that its place in a block says.
type bucket struct {
	blocks       int
	at           time.Time // no object is younger
	lists, heads atomic.Int64
}

// bucketOf returns a bucket with so many objects at least.
func bucketOf(objects int, at time.Time) *bucket {
	listed := blockSize - len(vanishedPlaces)
	return &bucket{blocks: (objects + listed - 1) / listed, at: at}
}

func (b *bucket) size() int { return b.blocks * blockSize }

// rows is how many rows the log has.
func (b *bucket) rows() int { return b.blocks * (blockSize - 5) }

func (b *bucket) differences() reconcile.Counts {
	n := int64(b.blocks)
	return reconcile.Counts{Listed: n * (blockSize - 5), Known: n * (blockSize - 10), Missing: 3 * n, Recovered: 3 * n,
		Vanished: 5 * n, Foreign: n, TooOld: n}
}

// The places in a block.
var (
	vanishedPlaces = []int{17, 2017, 4017, 6017, 8017}
	unknownPlaces  = []int{1003, 5003, 9003, foreignPlace, oldPlace}
)

const foreignPlace, oldPlace = 3333, 7777

func place(i int, places []int) bool {
	for _, p := range places {
		if i%blockSize == p {
			return true
		}
	}
	return false
}

func benchKey(i int) string { return fmt.Sprintf("d%03d/%09d.jpg", i/perDir, i) }

func (b *bucket) stored(i int) time.Time {
	if i%blockSize == oldPlace {
		return b.at.AddDate(-2, 0, 0)
	}
	return b.at.Add(-time.Duration(i%3600) * time.Second)
}

// ServeHTTP answers ListObjectsV2 and HeadObject, without looking at signatures.
func (b *bucket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodHead {
		b.head(w, strings.TrimPrefix(r.URL.Path, "/"+benchBucket+"/"))
		return
	}
	b.lists.Add(1)
	q := r.URL.Query()
	limit, err := strconv.Atoi(q.Get("max-keys"))
	if err != nil || q.Get("list-type") != "2" || q.Get("prefix") != "" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	after := q.Get("start-after")
	i := sort.Search(b.size(), func(i int) bool { return benchKey(i) > after })
	var page strings.Builder
	page.WriteString("<ListBucketResult><EncodingType>url</EncodingType>")
	n := 0
	for ; i < b.size() && n < limit; i++ {
		if place(i, vanishedPlaces) {
			continue
		}
		n++
		fmt.Fprintf(&page, `<Contents><Key>%s</Key><LastModified>%s</LastModified><ETag>"%032X"</ETag><Type>Normal</Type>`+
			`<Size>%d</Size><StorageClass>Standard</StorageClass></Contents>`, url.QueryEscape(benchKey(i)),
			b.stored(i).Format("2006-01-02T15:04:05.000Z"), i, i)
	}
	fmt.Fprintf(&page, "<IsTruncated>%t</IsTruncated><KeyCount>%d</KeyCount></ListBucketResult>", i < b.size(), n)
	w.Header().Set("Content-Type", "application/xml")
	_, _ = io.WriteString(w, page.String()) // or the client is gone
}

func (b *bucket) head(w http.ResponseWriter, key string) {
	b.heads.Add(1)
	_, name, _ := strings.Cut(key, "/")
	i, err := strconv.Atoi(strings.TrimSuffix(name, ".jpg"))
	if err != nil || place(i, vanishedPlaces) {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	h := w.Header()
	h.Set("Content-Length", strconv.Itoa(i))
	h.Set("Content-Type", "image/jpeg")
	h.Set("ETag", fmt.Sprintf(`"%032X"`, i))
	h.Set("Last-Modified", b.stored(i).Format(http.TimeFormat))
	h.Set("x-oss-hash-crc64ecma", strconv.Itoa(i))
	w.WriteHeader(http.StatusOK)
}

// fill writes the rows, unless they are there. Objects are not in the order of their keys, as in life.
func (b *bucket) fill(ctx context.Context, pool *pgxpool.Pool, said io.Writer) error {
	if err := eventstore.EnsurePartitions(ctx, pool, time.Now()); err != nil {
		return err
	}
	var there bool
	if err := pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM upcall.rollup_objects)").Scan(&there); err != nil || there {
		return err
	}
	began := time.Now()
	exec := func(sql string, args ...any) error {
		if _, err := pool.Exec(ctx, sql, args...); err != nil {
			return fmt.Errorf("fill: %w", err)
		}
		return nil
	}
	if err := exec("ALTER TABLE upcall.rollup_objects DROP CONSTRAINT rollup_objects_pkey"); err != nil {
		return err
	}
	const step = 500_000
	for from := 0; from < b.size(); from += step {
		// Events without a recorded_xid are in no reader's log; what they are counted as is written beside them.
		err := exec(`WITH made AS (
				SELECT i, ('00000000-0000-4000-8000-' || lpad(to_hex(i), 12, '0'))::uuid AS id,
					$4::timestamptz - (i % 3600) * interval '1 second' AS at, upper(lpad(to_hex(i), 32, '0')) AS etag,
					'd' || lpad((i / 100000)::text, 3, '0') || '/' || lpad(i::text, 9, '0') || '.jpg' AS key
				FROM (SELECT n * 7919 % $3::bigint AS i FROM generate_series($1::bigint, $2::bigint) AS n) AS numbers
				WHERE NOT i % 10000 = ANY ($5::bigint[])
			), events AS (
				INSERT INTO upcall.upload_events (id, received_at, source, bucket, object_key, etag, size, mime_type, recorded_xid)
				SELECT id, at, 'callback', 'photos', key, etag, i, 'image/jpeg', NULL FROM made ORDER BY at, id
			)
			INSERT INTO upcall.rollup_objects (generation, bucket, object_key, uploads, sources, first_at, first_id, first_mime_type,
				first_source, received_at, event_id, hourly_mime_type, source, size, etag, mime_type)
			SELECT 0, 'photos', key, 1, 1, at, id, 'image/jpeg',
				'callback', at, id, 'image/jpeg', 'callback', i, etag, 'image/jpeg' FROM made`,
			from, min(from+step, b.size())-1, b.size(), b.at, unknownPlaces)
		if err != nil {
			return err
		}
		fmt.Fprintf(said, "%d of %d rows after %s\n", from+step, b.size(), time.Since(began).Round(time.Second))
	}
	for _, sql := range []string{
		"ALTER TABLE upcall.rollup_objects ADD PRIMARY KEY (generation, bucket, object_key)",
		"VACUUM ANALYZE upcall.rollup_objects", "VACUUM ANALYZE upcall.upload_events", "CHECKPOINT",
	} {
		if err := exec(sql); err != nil {
			return err
		}
	}
	fmt.Fprintf(said, "filled after %s\n", time.Since(began).Round(time.Second))
	return exec(`INSERT INTO upcall.issued_uploads (upload_id, issued_at, expires_at, bucket, object_key, vars)
		SELECT gen_random_uuid(), $2::timestamptz - interval '2 hours', $2::timestamptz, 'photos',
			'd' || lpad((i / 100000)::text, 3, '0') || '/' || lpad(i::text, 9, '0') || '.jpg', '{"uid":"42"}'
		FROM generate_series(0, $1::bigint - 1) AS i WHERE i % 10000 IN (1003, 5003, 9003, 7777)`, b.size(), b.at)
}
