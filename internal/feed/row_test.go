package feed

import (
	"math"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/event"
)

// TestSight: what is seen of an entry is what its event holds, nulls and all, and an entry is decoded
// only if someone wants it, and once.
func TestSight(t *testing.T) {
	t.Parallel()
	w := shared(t)
	start := must(w.Now(t.Context()))(t)
	if _, err := w.pool.Exec(t.Context(), `
		INSERT INTO upcall.upload_events (id, received_at, bucket, object_key, mime_type, size, crc64, client_ip, vars, source)
		SELECT gen_random_uuid(), $1::timestamptz + n * interval '1 microsecond', bucket, object_key, mime_type, n,
			18446744073709551615, ip::inet, vars::jsonb, 'callback'
		FROM (VALUES (1, 'demo', 'a/文件 "1".jpg', 'image/jpeg', '192.0.2.1', '{"uid": "42", "n": 7, "文": "\"\\u0041"}'),
			(2, NULL, NULL, NULL, NULL, '{}'),
			(3, 'demo', NULL, 'text/plain', '2001:db8::1', '{"empty": "", "object": {"a": [1, null]}}'),
			(4, NULL, 'only a key', NULL, NULL, '{"long": "'||repeat('x', 70000)||'"}')) AS v (n, bucket, object_key, mime_type, ip, vars)`,
		time.Now()); err != nil {
		t.Fatal(err)
	}
	var rows []*row
	for at := start; len(rows) < 4; {
		more, next, err := w.next(t.Context(), at, 10, all)
		if err != nil {
			t.Fatal(err)
		}
		rows, at = append(rows, more...), next
	}
	for i, r := range rows {
		seen := r.sight()
		vars := seen.Vars()
		if r.event.Load() != nil {
			t.Errorf("row %d: it was decoded only to look at it", i+1)
		}
		e, err := w.decoder.decode(r)
		if err != nil {
			t.Fatal(err)
		}
		if again, _ := w.decoder.decode(r); again != e {
			t.Errorf("row %d was decoded twice", i+1)
		}
		if seen.ID != e.ID || !seen.ReceivedAt.Equal(e.ReceivedAt) || seen.Bucket != e.Callback.Bucket || seen.Object != e.Callback.Object ||
			seen.MimeType != e.Callback.MimeType || !cmp.Equal(vars, e.Callback.Vars) || *e.Callback.CRC64 != math.MaxUint64 {
			t.Errorf("row %d: seen %.200v with %.200v, want %.400v", i+1, seen, vars, e)
		}
	}

	// A page has only what its reader wants, and the rest stays as it came.
	var passed atomic.Pointer[Cursor]
	page := must(w.Find(t.Context(), start, 10, func(s *Sight) bool { return s.Bucket == "demo" }, &passed))(t)
	for _, e := range page.Entries {
		if e.Event.Callback.Bucket != "demo" {
			t.Errorf("got %+v, which is not wanted", e.Event)
		}
	}
	if len(page.Entries) == 0 || page.Next.compare(page.Entries[len(page.Entries)-1].Cursor.position) < 0 {
		t.Errorf("got %d entries up to %v", len(page.Entries), page.Next)
	}
}

// TestDecodeRefuses: a value that cannot be decoded is an error with the event and the column, and
// the next row is not affected.
func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	w := shared(t)
	start := must(w.Now(t.Context()))(t)
	add(t, w.pool, time.Now(), 1)
	rows, _, err := w.next(t.Context(), start, 1, all)
	if err != nil {
		t.Fatal(err)
	}
	broken := row{cursor: rows[0].cursor, columns: rows[0].columns, values: rows[0].values[:4] + "x" + rows[0].values[5:]}
	broken.columns = append(broken.columns[:0:0], broken.columns...)
	broken.columns[0].DataTypeOID = 25 // a uuid that came as text
	if e, err := w.decoder.decode(&broken); err == nil {
		t.Errorf("got %+v, want an error", e)
	}
	if e, err := w.decoder.decode(rows[0]); err != nil || e.Source != event.SourceCallback {
		t.Errorf("got %+v and %v", e, err)
	}
}

// TestLostHead: a table without its row, which names the cluster, is an error and no crash.
func TestLostHead(t *testing.T) {
	t.Parallel()
	w := shared(t)
	if _, err := w.pool.Exec(t.Context(), "DELETE FROM upcall.feed_log"); err != nil {
		t.Fatal(err)
	}
	for _, from := range []position{{xid: 1}, {at: 1}} {
		if c, err := w.fetch(t.Context(), from, 10, all); err == nil {
			t.Errorf("from %+v: got %+v, want an error", from, c)
		}
	}
}
