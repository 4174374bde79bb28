package eventstore

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/dbtest"
	"upcall/internal/event"
)

func revoke(t *testing.T, l testLedger, id uuid.UUID) {
	t.Helper()
	if err := l.Revoke(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

func wantRevoked(t *testing.T, r *Recorder, e *event.Event) {
	t.Helper()
	if _, err := r.Record(t.Context(), e); !errors.Is(err, event.ErrRevoked) || errors.Is(err, event.ErrUnavailable) {
		t.Errorf("got %v, want event.ErrRevoked", err)
	}
}

// wantRefused checks the number of refusals, and that none of them is an event.
func wantRefused(t *testing.T, pool *pgxpool.Pool, want int) {
	t.Helper()
	wantRow(t, pool, want, "SELECT count(*)::int FROM upcall.refused_callbacks WHERE reason = 'token_revoked'")
	wantRow(t, pool, 0, "SELECT count(*)::int FROM upcall.refused_callbacks JOIN upcall.callback_ids ON id = digest")
}

func TestRevoke(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	l, r := newLedger(t, Config{Pool: pool}), newRecorder(t, Config{Pool: pool})
	u := smallUpload()
	issue(t, l, u)
	if err := l.Revoke(t.Context(), uuid.New()); !errors.Is(err, ErrNotFound) || errors.Is(err, event.ErrUnavailable) {
		t.Errorf("revoke an unknown upload: got %v, want ErrNotFound", err)
	}
	revoke(t, l, u.ID)
	first := get(t, l, u.ID).RevokedAt
	revoke(t, l, u.ID)
	if again := get(t, l, u.ID).RevokedAt; !again.Equal(first) {
		t.Errorf("revoked at %v and again at %v; want the first", first, again)
	}

	e := eventOf(u)
	e.SourceAddr = netip.MustParseAddr("2001:db8::7")
	wantRevoked(t, r, e)
	wantRevoked(t, r, e) // kept once
	wantRefused(t, pool, 1)
	wantCount(t, pool, 0)
	wantRow(t, pool, strings.Join([]string{e.ID.String(), "2001:db8::7", "demo", "a.txt", u.ID.String(), "t"}, " "),
		`SELECT concat_ws(' ', digest, host(source_addr), bucket, object_key, upload_id, refused_at = $1)
		FROM upcall.refused_callbacks`, at)

	// Other uploads are not affected.
	record(t, r, eventOf(smallUpload()), false)
	record(t, r, smallEvent(), false)
	if found, err := r.Find(t.Context(), e.ID, e.UploadID); err != nil || found {
		t.Errorf("found %t, %v; want the refused event not recorded", found, err)
	}
}

// TestRevokedInABatch checks that the batch's other events are recorded.
func TestRevokedInABatch(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	l := newLedger(t, Config{Pool: pool})
	good, bad := smallUpload(), smallUpload()
	issue(t, l, good, bad)
	w := newWriter(patient(Config{Pool: dbtest.Beside(t, pool, OpenRecorder)}).withDefaults(), eventKind)
	before := eventOf(bad)
	if diff := cmp.Diff([]string{"new"}, answersOf(w, requests(t, before))); diff != "" {
		t.Fatal(diff)
	}
	revoke(t, l, bad.ID)
	refused, acknowledged := eventOf(bad), eventOf(bad)
	acknowledged.Acknowledged = true
	bare := eventOf(bad)
	bare.Callback.Bucket, bare.Callback.Object = "", ""
	batch := requests(t, eventOf(good), refused, smallEvent(), before, refused, bare, acknowledged)
	want := []string{"new", "revoked", "new", "duplicate", "revoked", "revoked", "new"}
	if diff := cmp.Diff(want, answersOf(w, batch)); diff != "" {
		t.Error(diff)
	}
	// An acknowledged event stays recorded, even if it comes again as not acknowledged.
	acknowledged.Acknowledged = false
	if diff := cmp.Diff([]string{"duplicate"}, answersOf(w, requests(t, acknowledged))); diff != "" {
		t.Error(diff)
	}
	wantCount(t, pool, 4)
	wantRefused(t, pool, 2)
	// One that came only after the upload was revoked was acknowledged by mistake: PostgreSQL
	// could not be asked then.
	late := eventOf(bad)
	late.Acknowledged, late.ReceivedAt = true, time.Now().Add(time.Minute)
	if diff := cmp.Diff([]string{"revoked"}, answersOf(w, requests(t, late))); diff != "" {
		t.Error(diff)
	}
	wantCount(t, pool, 4)
	wantRefused(t, pool, 3)
	wantRow(t, pool, 3, `SELECT num_nulls(bucket, object_key, source_addr) FROM upcall.refused_callbacks WHERE digest = $1`, bare.ID)
}

// TestRefusalsAreBounded checks that one upload cannot fill the disk.
func TestRefusalsAreBounded(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	l, r := newLedger(t, Config{Pool: pool}), newRecorder(t, Config{Pool: pool, Writers: 1, MaxBatch: 10})
	u, other := smallUpload(), smallUpload()
	issue(t, l, u, other)
	revoke(t, l, u.ID)
	revoke(t, l, other.ID)
	var group sync.WaitGroup
	for range 400 {
		group.Go(func() { wantRevoked(t, r, eventOf(u)) })
	}
	group.Wait()
	long := eventOf(other)
	long.Callback.Bucket, long.Callback.Object = strings.Repeat("ü", 5000), strings.Repeat("ü", 100_000)
	wantRevoked(t, r, long)
	var kept int
	if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM upcall.refused_callbacks WHERE upload_id = $1",
		u.ID).Scan(&kept); err != nil || kept < 100 || kept >= 110 {
		t.Errorf("%d refusals are kept, %v; want 100 to 109", kept, err)
	}
	wantRow(t, pool, "1024 1024", `SELECT concat_ws(' ', length(bucket), length(object_key))
		FROM upcall.refused_callbacks WHERE upload_id = $1`, other.ID)
}

// TestRevokeAfterStatementHasBegun checks that the callback is recorded, and that Revoke does not
// wait for it.
func TestRevokeAfterStatementHasBegun(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	l, r := newLedger(t, Config{Pool: pool}), newRecorder(t, Config{Pool: pool})
	u := smallUpload()
	issue(t, l, u)
	e := eventOf(u)
	record(t, r, smallEvent(), false) // makes the partition
	// Another receiver is about to commit the same callback, but rolls back.
	tx := aboutToCommit(t, pool, e)
	outcome := make(chan error)
	go func() {
		_, err := r.Record(context.Background(), e)
		outcome <- err
	}()
	waitsForLock(t, pool)
	revoke(t, l, u.ID)
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-outcome; err != nil {
		t.Errorf("got %v, want it recorded", err)
	}
	if got := get(t, l, u.ID); got.Status != StatusRevoked || got.Event == nil || got.Event.ID != e.ID {
		t.Errorf("got %+v, want it revoked, with the event", got)
	}
	record(t, r, e, true)
	wantRevoked(t, r, eventOf(u))
	wantRefused(t, pool, 1)
}

// TestRevokeBeforeStatementBegins refuses a callback that has not reached PostgreSQL yet.
func TestRevokeBeforeStatementBegins(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t)
	pool := dbtest.Open(t, url, Open)
	l := newLedger(t, Config{Pool: pool})
	p, through := newProxy(t, url)
	r := newRecorder(t, Config{Pool: dbtest.Open(t, through, Open), CommitTimeout: time.Minute})
	u := smallUpload()
	issue(t, l, u)
	record(t, r, eventOf(u), false) // connects and prepares the statement
	p.gate.Lock()
	outcome := make(chan error)
	go func() {
		_, err := r.Record(context.Background(), eventOf(u))
		outcome <- err
	}()
	revoke(t, l, u.ID)
	p.gate.Unlock()
	if err := <-outcome; !errors.Is(err, event.ErrRevoked) {
		t.Errorf("got %v, want event.ErrRevoked", err)
	}
	wantCount(t, pool, 1)
	wantRefused(t, pool, 1)
}

// TestRevokeRacesWithCallbacks checks that each callback is recorded or refused, as its sender is
// told.
func TestRevokeRacesWithCallbacks(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t)
	pool := dbtest.Open(t, url, Open)
	l := newLedger(t, Config{Pool: pool})
	recorders := []*Recorder{newRecorder(t, Config{Pool: pool, MaxBatch: 16}), newRecorder(t, Config{Pool: dbtest.Open(t, url, Open),
		MaxBatch: 16})}
	var recorded, refused atomic.Int32
	tell := func(err error) {
		switch {
		case err == nil:
			recorded.Add(1)
		case errors.Is(err, event.ErrRevoked):
			refused.Add(1)
		default:
			t.Error(err)
		}
	}
	const uploads, callbacks = 50, 8
	var group sync.WaitGroup
	for range uploads {
		u := smallUpload()
		issue(t, l, u)
		for i := range callbacks {
			group.Go(func() {
				_, err := recorders[i%2].Record(t.Context(), eventOf(u))
				tell(err)
			})
		}
		for range 2 {
			group.Go(func() {
				if err := l.Revoke(t.Context(), u.ID); err != nil {
					t.Error(err)
				}
				wantRevoked(t, recorders[0], eventOf(u)) // from now on
				refused.Add(1)
			})
		}
	}
	group.Wait()
	if n := recorded.Load() + refused.Load(); n != uploads*(callbacks+2) {
		t.Errorf("%d answers", n)
	}
	wantCount(t, pool, int(recorded.Load()))
	wantRefused(t, pool, int(refused.Load()))
}
