package eventstore

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"upcall/internal/dbtest"
)

// TestLedgerFollowsEvents checks that issued uploads are deleted with their events, not before.
func TestLedgerFollowsEvents(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	l, r := newLedger(t, Config{Pool: pool}), newRecorder(t, Config{Pool: pool})
	names := make(map[uuid.UUID]string)
	issued := func(name string, at time.Time) IssuedUpload {
		u := smallUpload()
		u.IssuedAt = at
		names[u.ID] = name
		issue(t, l, u)
		return u
	}
	uploaded := func(u IssuedUpload, at time.Time) {
		e := eventOf(u)
		e.ReceivedAt = at
		record(t, r, e, false)
	}
	uploaded(issued("used in a dropped month", monthsAgo(5)), monthsAgo(5).Add(time.Hour))
	uploaded(issued("used in the next month", monthsAgo(4)), monthsAgo(4).Add(time.Hour))
	uploaded(issued("used in a kept month", monthsAgo(4)), monthsAgo(1))
	uploaded(issued("used since", monthsAgo(1)), monthsAgo(1))
	issued("never used", monthsAgo(5))
	revoke(t, l, issued("revoked", monthsAgo(5)).ID)
	issued("never used since", monthsAgo(1))
	revoke(t, l, issued("revoked since", monthsAgo(1)).ID)

	left := func() map[string]bool {
		t.Helper()
		got := make(map[string]bool)
		for id, name := range names {
			if number(t, pool, "SELECT count(*) FROM upcall.issued_uploads WHERE upload_id = $1", id) == 1 {
				got[name] = true
			}
		}
		return got
	}
	want := map[string]bool{
		"used in the next month": true, "used in a kept month": true, "used since": true, "never used since": true, "revoked since": true,
	}
	if d := dropped(t, pool, time.Now(), 90, 5); d.Issued != 3 {
		t.Errorf("deleted %d issued uploads, want 3", d.Issued)
	}
	if diff := cmp.Diff(want, left()); diff != "" {
		t.Errorf("left after one month (-want +got):\n%s", diff)
	}
	delete(want, "used in the next month")
	dropped(t, pool, time.Now(), 90, 4)
	if diff := cmp.Diff(want, left()); diff != "" {
		t.Errorf("left after two months (-want +got):\n%s", diff)
	}
	dropped(t, pool, time.Now(), 90)
	if diff := cmp.Diff(want, left()); diff != "" {
		t.Errorf("left at the end (-want +got):\n%s", diff)
	}
	if n := number(t, pool, "SELECT count(*) FROM upcall.revoked_uploads"); n != 1 {
		t.Errorf("%d revoked uploads, want only the recent one", n)
	}
}

// TestLedgerInSteps deletes more than one statement does.
func TestLedgerInSteps(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	execute(t, pool, fmt.Sprintf(`INSERT INTO upcall.issued_uploads (upload_id, issued_at, expires_at, bucket, object_key)
		SELECT gen_random_uuid(), now() - interval '200 days', now() - interval '199 days', 'demo', 'a.txt'
		FROM generate_series(1, %d)`, 2*trimStep+1))
	if d := dropped(t, pool, time.Now(), 90); d.Issued != 2*trimStep+1 {
		t.Errorf("deleted %d issued uploads, want %d", d.Issued, 2*trimStep+1)
	}
}
