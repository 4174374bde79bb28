package eventstore

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/dbtest"
)

// TestFindIssued finds uploads by bucket and key.
func TestFindIssued(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	l := newLedger(t, Config{Pool: pool})
	of := func(bucket, key string) IssuedUpload {
		u := smallUpload()
		u.ID, u.Bucket, u.Object = uuid.New(), bucket, key
		return u
	}
	first, second, elsewhere := of("demo", "a"), of("demo", "a"), of("demo2", "a")
	first.Vars, second.IssuedAt = map[string]string{"uid": `4"2`}, first.IssuedAt.Add(time.Minute)
	second.Size = new(int64(7))
	issue(t, l, first, second, elsewhere, of("demo", "b"))
	if err := l.Revoke(t.Context(), second.ID); err != nil {
		t.Fatal(err)
	}
	used := smallEvent()
	used.UploadID = uuid.NullUUID{UUID: first.ID, Valid: true}
	record(t, newRecorder(t, Config{Pool: pool}), used, false)
	stored := func(key string) StoredObject { return StoredObject{Object{"demo", key}, second.IssuedAt} }
	found, err := FindIssued(t.Context(), pool, []StoredObject{stored("a"), stored("none"), stored("a")})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != 2 || found[0].ID != second.ID || found[1].ID != first.ID {
		t.Fatalf("got %v, want the second and the first", found)
	}
	if found[0].RevokedAt.IsZero() || found[0].Used || !found[1].RevokedAt.IsZero() || !found[1].Used {
		t.Errorf("revoked and used: got %v", found)
	}
	if got := string(found[1].EventVars()["uid"]); got != `"4\"2"` {
		t.Errorf("got the variable %s", got)
	}
	// What was issued later, however much, is not in the way. Clocks may be a minute apart.
	execute(t, pool, fmt.Sprintf(`INSERT INTO upcall.issued_uploads (upload_id, issued_at, expires_at, bucket, object_key)
		SELECT gen_random_uuid(), '%s'::timestamptz + interval '61 seconds', now(), 'demo', 'a' FROM generate_series(1, %d)`,
		second.IssuedAt.Format(time.RFC3339Nano), mostIssued))
	if found, err = FindIssued(t.Context(), pool, []StoredObject{stored("a")}); err != nil || len(found) != 2 || found[0].ID != second.ID {
		t.Errorf("after others were issued: got %v, %v", found, err)
	}
	if found, err = FindIssued(t.Context(), pool, []StoredObject{{Object: Object{"demo", "a"}}}); err != nil || len(found) != mostIssued {
		t.Errorf("without a time: got %d, %v, want the latest %d", len(found), err, mostIssued)
	}
	known, err := FindVars(t.Context(), pool, []uuid.UUID{first.ID, second.ID, uuid.New()})
	if u := known[first.ID]; err != nil || len(known) != 2 || string(u.EventVars()["uid"]) != `"4\"2"` || len(known[second.ID].Vars) != 0 {
		t.Errorf("variables by id: %v, %v", known, err)
	}
}

// TestChooseIssued chooses the upload that an object is of.
func TestChooseIssued(t *testing.T) {
	t.Parallel()
	of := func(n byte, issued time.Duration, change func(*FoundUpload)) FoundUpload {
		u := FoundUpload{IssuedUpload: IssuedUpload{ID: uuid.UUID{15: n}, IssuedAt: at.Add(issued), ExpiresAt: at.Add(-time.Hour),
			Bucket: "demo", Object: "a"}}
		if change != nil {
			change(&u)
		}
		return u
	}
	isUsed := func(u *FoundUpload) { u.Used = true }
	isRevoked := func(u *FoundUpload) { u.RevokedAt = at }
	expired := func(ago time.Duration) func(*FoundUpload) {
		return func(u *FoundUpload) { u.ExpiresAt = at.Add(-ago) }
	}
	for name, test := range map[string]struct {
		found   []FoundUpload
		want    byte
		revoked bool
	}{
		"none":                     {nil, 0, false},
		"the latest":               {[]FoundUpload{of(1, -3, nil), of(2, -1, nil), of(3, -2, nil)}, 2, false},
		"not a later one":          {[]FoundUpload{of(1, time.Hour, nil)}, 0, false},
		"by a clock that is ahead": {[]FoundUpload{of(1, time.Second, nil)}, 1, false},
		"not a used one":           {[]FoundUpload{of(1, -3, nil), of(2, -1, isUsed)}, 1, false},
		"a used one if need be":    {[]FoundUpload{of(1, -3, isUsed), of(2, -1, isUsed)}, 2, false},
		"not a revoked one":        {[]FoundUpload{of(1, -3, nil), of(2, -1, isRevoked)}, 1, false},
		"only a revoked one":       {[]FoundUpload{of(2, -1, isRevoked)}, 0, true},
		"a day after it expired":   {[]FoundUpload{of(1, -1, expired(24*time.Hour))}, 1, false},
		"later":                    {[]FoundUpload{of(1, -1, expired(24*time.Hour+time.Second))}, 0, false},
		"revoked, and later": {[]FoundUpload{of(1, -1, func(u *FoundUpload) {
			isRevoked(u)
			expired(25 * time.Hour)(u)
		})}, 0, false},
		"another key":    {[]FoundUpload{of(1, -1, func(u *FoundUpload) { u.Object = "b" })}, 0, false},
		"another bucket": {[]FoundUpload{of(1, -1, func(u *FoundUpload) { u.Bucket = "b" })}, 0, false},
		"another size":   {[]FoundUpload{of(1, -1, func(u *FoundUpload) { u.Size = new(int64(6)) })}, 0, false},
		"its size":       {[]FoundUpload{of(1, -1, func(u *FoundUpload) { u.Size = new(int64(5)) })}, 1, false},
	} {
		got, revoked := ChooseIssued(test.found, Object{"demo", "a"}, at, new(int64(5)))
		if got.ID != (uuid.UUID{15: test.want}) || revoked != test.revoked {
			t.Errorf("%s: got %s, revoked %t", name, got.ID, revoked)
		}
	}
	long, early := of(1, -1, expired(48*time.Hour)), of(2, time.Hour, nil)
	if got, _ := ChooseIssued([]FoundUpload{long, early}, Object{"demo", "a"}, time.Time{}, nil); got.ID != early.ID {
		t.Errorf("without a time: got %s, want the latest", got.ID)
	}
}

// TestFindIssuedByPrefix finds uploads under a prefix, and prefers those to the key itself.
func TestFindIssuedByPrefix(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	l := newLedger(t, Config{Pool: pool})
	of := func(key string, byPrefix bool) IssuedUpload {
		u := smallUpload()
		u.ID, u.Object, u.ByPrefix = uuid.New(), key, byPrefix
		return u
	}
	under, deeper, exact, folder := of("a/", true), of("a/b/", true), of("a/b/c", false), of("a/b/", false)
	issue(t, l, under, deeper, exact, folder, of("b/", true), of("a/b/c", true), of("a/b/c/", true))
	ids := func(key string) (found map[uuid.UUID]bool) {
		t.Helper()
		all, err := FindIssued(t.Context(), pool, []StoredObject{{Object: Object{"demo", key}}})
		if err != nil {
			t.Fatal(err)
		}
		found = make(map[uuid.UUID]bool)
		for _, u := range all {
			if found[u.ID] = true; u.Object != key {
				t.Errorf("%s: an upload of %s", key, u.Object)
			}
		}
		return found
	}
	for key, want := range map[string][]IssuedUpload{
		"a/b/c": {under, deeper, exact}, "a/b/": {under, folder}, "a/x": {under}, "a": {}, "ax": {}, "x/a/b": {},
	} {
		got := ids(key)
		for _, u := range want {
			if !got[u.ID] {
				t.Errorf("%s: the upload to %s (by prefix %t) is missing", key, u.Object, u.ByPrefix)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s: %d uploads, want %d", key, len(got), len(want))
		}
	}
	choose := func(used bool) uuid.UUID {
		found := []FoundUpload{{IssuedUpload: deeper}, {IssuedUpload: exact, Used: used}}
		found[0].Object, found[0].Used = "a/b/c", true
		chosen, _ := ChooseIssued(found, Object{"demo", "a/b/c"}, time.Time{}, nil)
		return chosen.ID
	}
	if choose(false) != exact.ID || choose(true) != deeper.ID {
		t.Error("an unused upload to the key comes first, then one under a prefix, then a used one")
	}
}
