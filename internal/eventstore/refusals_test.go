package eventstore

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/dbtest"
	"upcall/internal/event"
	"upcall/migrations"
)

func newRefusals(t *testing.T, pool *pgxpool.Pool, most int) *Refusals {
	t.Helper()
	r, err := NewRefusals(pool, most)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func keep(t *testing.T, r *Refusals, refusals ...event.RefusedCallback) {
	t.Helper()
	if err := r.Keep(t.Context(), refusals); err != nil {
		t.Fatal(err)
	}
}

func refusalLines(t *testing.T, pool *pgxpool.Pool) []string {
	t.Helper()
	rows, err := pool.Query(t.Context(), `SELECT concat_ws('|', reason, refused_at AT TIME ZONE 'UTC', coalesce(source_addr::text, 'null'),
		coalesce(bucket, 'null'), coalesce(object_key, 'null'), coalesce(request_id, 'null'), coalesce(upload_id::text, 'null'))
		FROM upcall.refused_callbacks ORDER BY refused_at`)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func TestRefusalsAreKept(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	r := newRefusals(t, pool, 100)
	upload, at := uuid.New(), at.Truncate(time.Second)
	full := event.RefusedCallback{Digest: uuid.New(), Reason: "token_expired", At: at, Source: netip.MustParseAddr("fe80::1%eth0"),
		Bucket: "demo", Object: "a.txt", RequestID: "R1", UploadID: uuid.NullUUID{UUID: upload, Valid: true}}
	other := full
	other.Reason, other.At = "bucket_conflict", at.Add(time.Second)
	keep(t, r) // nothing
	keep(t, r, full, full, other)
	again := full
	again.At = at.Add(time.Hour)
	keep(t, r, again, event.RefusedCallback{Digest: uuid.New(), Reason: "x", At: at.Add(2 * time.Second)})
	when := func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }
	want := []string{
		"token_expired|" + when(at) + "|fe80::1/128|demo|a.txt|R1|" + upload.String(),
		"bucket_conflict|" + when(at.Add(time.Second)) + "|fe80::1/128|demo|a.txt|R1|" + upload.String(),
		"x|" + when(at.Add(2*time.Second)) + "|null|null|null|null|null",
	}
	if diff := cmp.Diff(want, refusalLines(t, pool)); diff != "" {
		t.Error(diff)
	}
}

// TestClaims checks that any text is kept, up to the limit.
func TestClaims(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"":                                  "",
		"\x00":                              "",
		"a\x00b":                            "ab",
		"\xff\xfe":                          "?",
		strings.Repeat("\xff", 2000):        "?",
		strings.Repeat("\xffa", 1000):       strings.Repeat("?a", 512),
		strings.Repeat("a", 1023) + "é":     strings.Repeat("a", 1023) + "?",
		strings.Repeat("日", 2000):           strings.Repeat("日", 341) + "?",
		"'; DROP TABLE upcall.x; --":        "'; DROP TABLE upcall.x; --",
		strings.Repeat("a\x00", 1<<20):      strings.Repeat("a", 512),
		"\xf0\x9f\x98\x80 and \xed\xa0\x80": "😀 and ?",
	} {
		if got := claim(given, maxClaim); string(got) != want {
			t.Errorf("%.40q: got %.40q, want %.40q", given, got, want)
		}
	}
	pool := dbtest.Pool(t, Open)
	bad := "\x00\xff" + strings.Repeat("\xc3", 5000)
	keep(t, newRefusals(t, pool, 10), event.RefusedCallback{Digest: uuid.New(), Reason: "body", At: at, Bucket: bad, Object: bad,
		RequestID: bad})
	if n := number(t, pool, `SELECT count(*) FROM upcall.refused_callbacks
		WHERE bucket = '?' AND object_key = '?' AND request_id = '?'`); n != 1 {
		t.Error("the refusal was not kept")
	}
}

func FuzzClaim(f *testing.F) {
	f.Add("a\x00b\xff日", 5)
	f.Fuzz(func(t *testing.T, s string, most int) {
		if most < 0 || most > 1<<20 {
			return
		}
		got := string(claim(s, most))
		if len(got) > most || !utf8.ValidString(got) || strings.ContainsRune(got, 0) {
			t.Errorf("%q, %d: %q", s, most, got)
		}
	})
}

// TestRefusalsStayBounded writes from several receivers at once, and checks that a flood of one
// reason does not push out the others.
func TestRefusalsStayBounded(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	const most = 200
	keep(t, newRefusals(t, pool, most), event.RefusedCallback{Digest: uuid.New(), Reason: "rare", At: at.Add(-time.Hour)})
	var group sync.WaitGroup
	for range 4 {
		r := newRefusals(t, pool, most)
		group.Go(func() {
			for i := range 30 {
				var flood []event.RefusedCallback
				for j := range 20 {
					flood = append(flood, event.RefusedCallback{Digest: uuid.New(), Reason: "flood",
						At: at.Add(time.Duration(i*20+j) * time.Second)})
				}
				keep(t, r, flood...)
				if n := number(t, pool, "SELECT count(*) FROM upcall.refused_callbacks"); n > most+4*(most/100+20) {
					t.Errorf("%d rows", n)
				}
			}
		})
	}
	group.Wait()
	r := newRefusals(t, pool, most)
	if err := r.Trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := number(t, pool, "SELECT count(*) FROM upcall.refused_callbacks"); n != most {
		t.Errorf("%d rows, want %d", n, most)
	}
	if n := number(t, pool, "SELECT count(*) FROM upcall.refused_callbacks WHERE reason = 'rare'"); n != 1 {
		t.Error("the flood pushed out the other refusal")
	}
	if n := number(t, pool, "SELECT count(*) FROM upcall.refused_callbacks WHERE reason = 'flood' AND refused_at < $1",
		at.Add(500*time.Second)); n != 0 {
		t.Errorf("%d of the oldest are left", n)
	}
	if err := r.Trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := number(t, pool, "SELECT count(*) FROM upcall.refused_callbacks"); n != most {
		t.Errorf("%d rows after a second trim, want %d", n, most)
	}
}

// TestTrimFails: if the refusals are kept but could not be trimmed in time, the next call does it.
func TestTrimFails(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	const most = 200
	r := newRefusals(t, pool, most)
	keep(t, r, event.RefusedCallback{Digest: uuid.New(), Reason: "first", At: at})
	other, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Rollback(context.Background())
	if _, err := other.Exec(t.Context(), "SELECT pg_advisory_xact_lock($1)", migrations.LockRefusals); err != nil {
		t.Fatal(err)
	}
	var flood []event.RefusedCallback
	for range most + 50 {
		flood = append(flood, event.RefusedCallback{Digest: uuid.New(), Reason: "flood", At: at})
	}
	if err := r.Keep(t.Context(), flood); !errors.Is(err, event.ErrUnavailable) || !strings.Contains(err.Error(), "trim") {
		t.Fatalf("while another trims: %v", err)
	}
	if err := other.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	keep(t, r, event.RefusedCallback{Digest: uuid.New(), Reason: "last", At: at})
	if n := number(t, pool, "SELECT count(*) FROM upcall.refused_callbacks"); n != most {
		t.Errorf("%d rows, want %d", n, most)
	}
}

// TestTrimManyReasons trims to fewer rows than there are reasons, in more than one step.
func TestTrimManyReasons(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	execute(t, pool, fmt.Sprintf(`INSERT INTO upcall.refused_callbacks (digest, reason, refused_at)
		SELECT gen_random_uuid(), 'r' || n %% 7, now() FROM generate_series(1, %d) AS s (n)`, 3*trimStep))
	for _, most := range []int{trimStep, 8, 3, 1} {
		if err := newRefusals(t, pool, most).Trim(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := number(t, pool, "SELECT count(*) FROM upcall.refused_callbacks"); n != most {
			t.Errorf("%d rows, want %d", n, most)
		}
	}
	for _, most := range []int{-1, 0} {
		_, err := NewRefusals(pool, most)
		if err == nil || !strings.Contains(err.Error(), "a positive number of rows") {
			t.Errorf("%d rows: %v", most, err)
		}
	}
}
