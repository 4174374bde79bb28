package eventstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/dbtest"
	"upcall/internal/event"
)

// far is when uploads of these tests expire by default, because PostgreSQL has the real time.
var far = time.Date(2999, 1, 1, 0, 0, 0, 0, time.UTC)

// A testLedger is both sides of the ledger, each with the settings of the programs.
type testLedger struct {
	*Ledger
	*Uploads
}

func newLedger(t *testing.T, config Config) testLedger {
	t.Helper()
	uploads := NewUploads(config.Pool)
	config.Pool = dbtest.Beside(t, config.Pool, OpenRecorder)
	l, err := NewLedger(patient(config))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return testLedger{l, uploads}
}

func smallUpload() IssuedUpload {
	return IssuedUpload{ID: uuid.New(), IssuedAt: at, ExpiresAt: far, Bucket: "demo", Object: "a.txt"}
}

// issue puts uploads into the ledger.
func issue(t *testing.T, l testLedger, uploads ...IssuedUpload) {
	t.Helper()
	for _, u := range uploads {
		if err := l.Issue(t.Context(), u); err != nil {
			t.Fatal(err)
		}
	}
}

func get(t *testing.T, l testLedger, id uuid.UUID) IssuedStatus {
	t.Helper()
	s, err := l.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// eventOf returns an event of an upload.
func eventOf(u IssuedUpload) *event.Event {
	e := smallEvent()
	e.UploadID = uuid.NullUUID{UUID: u.ID, Valid: true}
	e.Callback.Bucket, e.Callback.Object = u.Bucket, u.Object
	return e
}

func wantRow[T any](t *testing.T, pool *pgxpool.Pool, want T, sql string, args ...any) {
	t.Helper()
	var got T
	if err := pool.QueryRow(t.Context(), sql, args...).Scan(&got); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: %s", sql, diff)
	}
}

func TestWhatIsIssuedIsRead(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	l := newLedger(t, Config{Pool: pool})
	size := int64(5 << 30)
	full := IssuedUpload{
		ID: uuid.New(), IssuedAt: at, ExpiresAt: far, Bucket: "demo", Object: "照片/ünï'\"\\{}.jpg", ContentType: "image/jpeg",
		Size: &size, Vars: map[string]string{"user": "4711", "größe": "\"\\ \t"}, APIKeyID: "web", OSSUploadID: "0004B9895DBBB6EC98E36",
	}
	least := smallUpload()
	issue(t, l, full, least)
	least.Vars = map[string]string{}
	for _, want := range []IssuedUpload{full, least} {
		got := get(t, l, want.ID)
		if diff := cmp.Diff(IssuedStatus{IssuedUpload: want, Status: StatusIssued}, got,
			cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })); diff != "" {
			t.Error(diff)
		}
	}
	wantRow(t, pool, 4, `SELECT num_nulls(content_type, size, api_key_id, oss_upload_id)
		FROM upcall.issued_uploads WHERE upload_id = $1`, least.ID)
}

func TestIssuedOnce(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	l := newLedger(t, Config{Pool: pool})
	u := smallUpload()
	other := u
	other.Object = "b.txt"
	issue(t, l, u, u, other)
	if got := get(t, l, u.ID); got.Object != "a.txt" {
		t.Errorf("got %q, want the row that came first", got.Object)
	}
	// In one batch, too.
	u.ID, other.ID = uuid.Nil, uuid.Nil
	u.ID[0], other.ID[0] = 7, 7
	w := newWriter(patient(Config{Pool: dbtest.Beside(t, pool, OpenRecorder)}).withDefaults(), issuedKind)
	batch := make([]*request[issuedRow], 0, 2)
	for _, upload := range []IssuedUpload{u, other} {
		row, err := newIssuedRow(upload)
		if err != nil {
			t.Fatal(err)
		}
		batch = append(batch, &request[issuedRow]{id: upload.ID, row: row, answer: make(chan answer, 1)})
	}
	w.record(t.Context(), slices.Clone(batch))
	for i, want := range []outcome{fresh, known} {
		if a := <-batch[i].answer; a.err != nil || a.outcome != want {
			t.Errorf("%d: got %q, %v; want %q", i, a.outcome, a.err, want)
		}
	}
	wantRow(t, pool, 2, "SELECT count(*)::int FROM upcall.issued_uploads")
}

func TestBadUploadIsRefused(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	l := newLedger(t, Config{Pool: pool, MaxBatch: 64, Writers: 1})
	spoiled := map[string]func(*IssuedUpload){
		"no id":                    func(u *IssuedUpload) { u.ID = uuid.Nil },
		"no bucket":                func(u *IssuedUpload) { u.Bucket = "" },
		"no key":                   func(u *IssuedUpload) { u.Object = "" },
		"no time of issue":         func(u *IssuedUpload) { u.IssuedAt = time.Time{} },
		"no expiry":                func(u *IssuedUpload) { u.ExpiresAt = time.Time{} },
		"NUL in key":               func(u *IssuedUpload) { u.Object = "a\x00b" },
		"bad UTF-8 in key":         func(u *IssuedUpload) { u.Object = "a\xffb" },
		"bad UTF-8 in bucket":      func(u *IssuedUpload) { u.Bucket = "\xc0\x80" },
		"bad UTF-8 in type":        func(u *IssuedUpload) { u.ContentType = "\xed\xa0\x80" },
		"bad UTF-8 in API key":     func(u *IssuedUpload) { u.APIKeyID = "\xff" },
		"NUL in OSS's id":          func(u *IssuedUpload) { u.OSSUploadID = "\x00" },
		"bad UTF-8 in a variable":  func(u *IssuedUpload) { u.Vars = map[string]string{"a": "\xff"} },
		"NUL in a variable":        func(u *IssuedUpload) { u.Vars = map[string]string{"a": "\x00"} },
		"NUL in a variable's name": func(u *IssuedUpload) { u.Vars = map[string]string{"\x00": "a"} },
		// Only PostgreSQL notices: its time begins later.
		"an expiry in 5001 BC": func(u *IssuedUpload) { u.ExpiresAt = time.Date(-5000, 1, 1, 0, 0, 0, 0, time.UTC) },
	}
	var group sync.WaitGroup
	for name, spoil := range spoiled {
		u := smallUpload()
		spoil(&u)
		group.Go(func() {
			if err := l.Issue(t.Context(), u); !errors.Is(err, event.ErrUnstorable) || errors.Is(err, event.ErrUnavailable) {
				t.Errorf("%s: got %v, want event.ErrUnstorable", name, err)
			}
		})
		group.Go(func() {
			if err := l.Issue(t.Context(), smallUpload()); err != nil {
				t.Errorf("in a batch with %s: %v", name, err)
			}
		})
	}
	group.Wait()
	wantRow(t, pool, len(spoiled), "SELECT count(*)::int FROM upcall.issued_uploads")
}

func TestStatus(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	l, r := newLedger(t, Config{Pool: pool}), newRecorder(t, Config{Pool: pool})
	past := at.AddDate(-1, 0, 0) // before PostgreSQL's time
	for name, test := range map[string]struct {
		expires        time.Time
		events         int
		revoke, expect bool // expect an event
		want           Status
	}{
		"issued":                 {far, 0, false, false, StatusIssued},
		"expired":                {past, 0, false, false, StatusExpired},
		"uploaded":               {far, 1, false, true, StatusUploaded},
		"uploaded twice":         {far, 2, false, true, StatusUploaded},
		"uploaded, expired":      {past, 1, false, true, StatusUploaded},
		"revoked":                {far, 0, true, false, StatusRevoked},
		"revoked, expired":       {past, 0, true, false, StatusRevoked},
		"uploaded, then revoked": {far, 1, true, true, StatusRevoked},
	} {
		u := smallUpload()
		u.ExpiresAt = test.expires
		issue(t, l, u)
		var last *event.Event
		for i := range test.events {
			last = eventOf(u)
			last.ReceivedAt = at.Add(time.Duration(i) * time.Second)
			record(t, r, last, false)
		}
		if test.revoke {
			if err := l.Revoke(t.Context(), u.ID); err != nil {
				t.Fatal(err)
			}
		}
		got := get(t, l, u.ID)
		if got.Status != test.want || got.RevokedAt.IsZero() == test.revoke || (got.Event != nil) != test.expect {
			t.Errorf("%s: got %+v", name, got)
		}
		if last != nil && got.Event != nil && (got.Event.ID != last.ID || got.Event.UploadID != last.UploadID) {
			t.Errorf("%s: got event %v, want the last", name, got.Event.ID)
		}
	}
	// An event without an upload changes nothing.
	record(t, r, smallEvent(), false)
	if _, err := l.Get(t.Context(), uuid.New()); !errors.Is(err, ErrNotFound) || errors.Is(err, event.ErrUnavailable) {
		t.Errorf("unknown upload: got %v, want ErrNotFound", err)
	}
}

// TestCallbackBeforeLedgerRow checks that a callback that is quicker than the ledger is recorded.
func TestCallbackBeforeLedgerRow(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	l, r := newLedger(t, Config{Pool: pool}), newRecorder(t, Config{Pool: pool})
	u := smallUpload()

	// The row is written but not committed.
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.Background())
	if _, err := tx.Exec(t.Context(), `INSERT INTO upcall.issued_uploads (upload_id, issued_at, expires_at, bucket, object_key)
		VALUES ($1, $2, $3, $4, $5)`, u.ID, u.IssuedAt, u.ExpiresAt, u.Bucket, u.Object); err != nil {
		t.Fatal(err)
	}
	e := eventOf(u)
	record(t, r, e, false)
	if _, err := l.Get(t.Context(), u.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
	wantRow(t, pool, "0 1", "SELECT issued || ' ' || unissued FROM upcall.upload_funnel")
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := get(t, l, u.ID); got.Status != StatusUploaded || got.Event == nil || got.Event.ID != e.ID {
		t.Errorf("got %+v, want it uploaded", got)
	}
	wantRow(t, pool, "1 0", "SELECT issued || ' ' || unissued FROM upcall.upload_funnel")
	record(t, r, e, true)
}

// TestIssueRacesWithCallback issues and records many uploads at the same time, with two ledgers
// and two recorders.
func TestIssueRacesWithCallback(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t)
	pool := dbtest.Open(t, url, Open)
	ledgers := []testLedger{newLedger(t, Config{Pool: pool, MaxBatch: 16}), newLedger(t, Config{Pool: dbtest.Open(t, url, Open),
		MaxBatch: 16})}
	recorders := []*Recorder{newRecorder(t, Config{Pool: pool, MaxBatch: 16}), newRecorder(t, Config{Pool: dbtest.Open(t, url, Open),
		MaxBatch: 16})}
	const uploads = 500
	var group sync.WaitGroup
	for i := range uploads {
		u := smallUpload()
		group.Go(func() { record(t, recorders[i%2], eventOf(u), false) })
		group.Go(func() {
			for range 2 {
				if err := ledgers[i/2%2].Issue(t.Context(), u); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	wantRow(t, pool, fmt.Sprint(uploads, uploads, uploads, 0), `
		SELECT concat_ws(' ', count(*), count(DISTINCT upload_id), sum(events), count(*) FILTER (WHERE status <> 'uploaded'))
		FROM upcall.upload_status`)
	wantCount(t, pool, uploads)
}

func TestLedgerWithoutDatabase(t *testing.T) {
	t.Parallel()
	pool := dbtest.Open(t, "postgres://nobody:secret@127.0.0.1:1/none", Open)
	l, k := newLedger(t, Config{Pool: pool}), NewAPIKeys(pool)
	_, errGet := l.Get(t.Context(), uuid.New())
	_, errList := k.List(t.Context())
	for name, err := range map[string]error{
		"Issue": l.Issue(t.Context(), smallUpload()), "Get": errGet, "Revoke": l.Revoke(t.Context(), uuid.New()),
		"Add": k.Add(t.Context(), APIKey{ID: "web", Hash: []byte{1}}), "List": errList, "Revoke key": k.Revoke(t.Context(), "web"),
	} {
		if !errors.Is(err, event.ErrUnavailable) || errors.Is(err, ErrNotFound) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got %v, want event.ErrUnavailable without the password", name, err)
		}
	}
	l.Close()
	if err := l.Issue(t.Context(), smallUpload()); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
	if _, err := NewLedger(Config{}); err == nil || !strings.HasPrefix(err.Error(), "ledger config: ") {
		t.Errorf("got %v", err)
	}
}
