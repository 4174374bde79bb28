package eventstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/dbtest"
	"upcall/internal/event"
)

// told returns what a notification tells of an upload.
func told(upload uuid.NullUUID, etag, request string) *event.Event {
	e := smallEvent()
	e.Source, e.UploadID = event.SourceNotification, upload
	e.Callback.ETag, e.Callback.RequestID, e.Callback.Operation = etag, request, "PutObject"
	e.ID = event.RecoveredID(e.Source, e.Callback.Bucket, e.Callback.Object, request, etag, e.ReceivedAt)
	return e
}

// listed returns what a listing tells of an upload.
func listed(upload uuid.NullUUID, etag string) *event.Event {
	e := told(upload, etag, "")
	e.Source, e.Callback.Operation = event.SourceReconcile, ""
	e.ID = event.RecoveredID(e.Source, e.Callback.Bucket, e.Callback.Object, "", etag, e.ReceivedAt)
	return e
}

func mustRecover(t *testing.T, pool *pgxpool.Pool, events ...*event.Event) []bool {
	t.Helper()
	recorded, err := Recover(t.Context(), pool, events)
	if err != nil {
		t.Fatal(err)
	}
	return recorded
}

// became returns what becomes of an event.
func became(t *testing.T, pool *pgxpool.Pool, e *event.Event) (r Recovery) {
	t.Helper()
	err := RecoverWith(t.Context(), pool, []*event.Event{e}, func(_ pgx.Tx, all []Recovery) error { r = all[0]; return nil })
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestRecover records only what nothing tells of.
func TestRecover(t *testing.T) {
	t.Parallel()
	id := uuid.NullUUID{UUID: uuid.MustParse("01930f6e-0000-7000-8000-000000000001"), Valid: true}
	other := uuid.NullUUID{UUID: uuid.MustParse("01930f6e-0000-7000-8000-000000000002"), Valid: true}
	callback := func(upload uuid.NullUUID, etag, request string) *event.Event {
		e := told(upload, etag, request)
		e.ID, e.Source = uuid.New(), event.SourceCallback
		return e
	}
	nameless := func(upload uuid.NullUUID, etag string) *event.Event { // a template of the operator's own
		e := callback(upload, etag, "R1")
		e.Callback.Object = ""
		return e
	}
	const issued = `INSERT INTO upcall.issued_uploads (upload_id, issued_at, expires_at, bucket, object_key) VALUES `
	later := func(e *event.Event, by time.Duration) *event.Event { e.ReceivedAt = e.ReceivedAt.Add(by); return e }
	recovered := func(upload uuid.NullUUID, apart time.Duration) string {
		return fmt.Sprintf(`INSERT INTO upcall.recovered_uploads (event_id, received_at, source, bucket, object_key, etag, upload_id)
			VALUES (gen_random_uuid(), '%s', 'reconcile', 'demo', 'a.txt', 'E1', '%s')`, at.Add(apart).Format(time.RFC3339), upload.UUID)
	}
	object := func(columns, values string) string {
		return `INSERT INTO upcall.rollup_objects (generation, bucket, object_key, uploads, sources, first_at, first_id, first_mime_type,
			first_source, received_at, event_id, hourly_mime_type, source, ` + columns + `) VALUES (0, 'demo', 'a.txt', 3, 1, now(),
			gen_random_uuid(), '', 'callback', now(), gen_random_uuid(), '', 'callback', ` + values + `)`
	}
	none := uuid.NullUUID{}
	sinceAt := time.Since(at)
	pool := dbtest.Pool(t, Open)
	r := newRecorder(t, Config{Pool: pool})
	for name, test := range map[string]struct {
		there *event.Event
		sql   string
		tells *event.Event
		want  Recovery
	}{
		"nothing is there":               {nil, "", told(id, "E1", "R1"), Recovered},
		"no upload":                      {nil, "", told(none, "E1", "R1"), Recovered},
		"neither ETag nor request id":    {nil, "", told(id, "", ""), Recovered},
		"upload and ETag":                {callback(id, "E1", "R1"), "", told(id, "E1", "R2"), AlreadyKnown},
		"ETag in quotes":                 {callback(id, `"e1"`, "R1"), "", told(id, "E1", "R2"), AlreadyKnown},
		"ETag in quotes, told":           {callback(id, "E1", "R1"), "", told(id, `"e1"`, "R2"), AlreadyKnown},
		"another ETag":                   {callback(id, "E1", "R1"), "", told(id, "E2", "R2"), Recovered},
		"another upload":                 {callback(id, "E1", "R1"), "", told(other, "E1", "R2"), Recovered},
		"request id and upload":          {callback(id, "", "R1"), "", told(id, "E1", "R1"), AlreadyKnown},
		"no ETags":                       {callback(id, "", "R1"), "", told(id, "", "R2"), Recovered},
		"request id, no upload":          {callback(none, "E1", "R1"), "", told(id, "E1", "R1"), AlreadyKnown},
		"request id, another upload":     {callback(other, "E1", "R1"), "", told(id, "E2", "R1"), AlreadyKnown},
		"no upload, another request id":  {callback(none, "E1", "R1"), "", told(none, "E1", "R2"), Recovered},
		"no upload and no request id":    {callback(none, "E1", ""), "", told(none, "E1", ""), Recovered},
		"current upload of the object":   {nil, object("request_id", "'R1'"), told(id, "E1", "R1"), AlreadyKnown},
		"first upload of the object":     {nil, object("first_request_id", "'R1'"), told(id, "E1", "R1"), AlreadyKnown},
		"object of the other generation": {nil, strings.Replace(object("request_id", "'R1'"), "(0,", "(1,", 1), told(id, "E1", "R1"), Recovered},
		"another object":                 {nil, strings.Replace(object("request_id", "'R1'"), "a.txt", "b.txt", 1), told(id, "E1", "R1"), Recovered},
		"object in another bucket":       {nil, strings.Replace(object("request_id", "'R1'"), "demo", "demo2", 1), told(id, "E1", "R1"), Recovered},
		"upload in between": {nil, object("number", "7") + `; INSERT INTO upcall.rollup_versions
			(generation, number, received_at, event_id, mime_type, source, request_id)
			VALUES (0, 7, now(), gen_random_uuid(), '', 'callback', 'R1')`,
			told(id, "E1", "R1"), AlreadyKnown},
		"revoked": {nil, `INSERT INTO upcall.revoked_uploads VALUES ('` + id.UUID.String() + `', now())`, told(id, "E1", "R1"), RecoveryRevoked},
		"another is revoked": {nil, `INSERT INTO upcall.revoked_uploads VALUES ('` + other.UUID.String() + `', now())`,
			told(id, "E1", "R1"), Recovered},
		"known and revoked": {callback(id, "E1", "R1"), `INSERT INTO upcall.revoked_uploads VALUES ('` + id.UUID.String() + `', now())`,
			told(id, "E1", "R1"), AlreadyKnown},
		"dropped":                                 {nil, `UPDATE upcall.feed_log SET dropped_before = '2026-12-01Z'`, told(id, "E1", "R1"), RecoveryTooOld},
		"not dropped yet":                         {nil, `UPDATE upcall.feed_log SET dropped_before = '2026-11-01Z'`, told(id, "E1", "R1"), Recovered},
		"listed, a notification recovered it":     {nil, strings.Replace(recovered(other, 0), "'reconcile'", "'notification'", 1), listed(id, "E1"), AlreadyKnown},
		"listed, one of other times recovered it": {nil, strings.Replace(recovered(other, 3*time.Minute), "'reconcile'", "'notification'", 1), listed(id, "E1"), Recovered},
		"listed, told of as another upload":       {callback(other, `"e1"`, "R1"), "", listed(id, "E1"), AlreadyKnown},
		"listed, told of without an upload":       {callback(none, "E1", "R1"), "", listed(id, `"E1"`), AlreadyKnown},
		"listed, told of two minutes later":       {later(callback(other, "E1", "R1"), 2*time.Minute), "", listed(id, "E1"), AlreadyKnown},
		"listed, told of over two minutes later":  {later(callback(other, "E1", "R1"), 121*time.Second), "", listed(id, "E1"), Recovered},
		"listed, told of over two minutes before": {later(callback(other, "E1", "R1"), -121*time.Second), "", listed(id, "E1"), Recovered},
		"listed with another ETag":                {callback(other, "E1", "R1"), "", listed(id, "E2"), Recovered},
		"listed, told of without a key": {nameless(other, "E1"),
			issued + `('` + other.UUID.String() + `', now(), now(), 'demo', 'a.txt')`, listed(id, "E1"), AlreadyKnown},
		"listed, told of without a key, of another": {nameless(other, "E1"),
			issued + `('` + other.UUID.String() + `', now(), now(), 'demo', 'b.txt')`, listed(id, "E1"), Recovered},
		"listed, told of without a key, never issued": {nameless(other, "E1"), "", listed(id, "E1"), Recovered},
		"listed, the current upload":                  {nil, object("etag", `'"e1"'`), later(listed(id, "E1"), sinceAt), AlreadyKnown},
		"listed, the current upload of long ago":      {nil, object("etag", `'"e1"'`), listed(id, "E1"), Recovered},
		"listed, the first upload":                    {nil, object("first_etag", "'E1'"), later(listed(id, "E1"), sinceAt), AlreadyKnown},
		"listed, an upload in between": {nil, object("number", "7") + `; INSERT INTO upcall.rollup_versions
			(generation, number, received_at, event_id, mime_type, source, etag)
			VALUES (0, 7, now(), gen_random_uuid(), '', 'callback', 'E1')`,
			later(listed(id, "E1"), sinceAt), AlreadyKnown},
		"listed before":                      {nil, recovered(other, time.Minute), told(none, "e1", "R1"), AlreadyKnown},
		"listed before as another upload":    {nil, recovered(other, time.Minute), told(id, "E1", "R1"), Recovered},
		"listed before, at another time":     {nil, recovered(other, 3*time.Minute), told(none, "E1", "R1"), Recovered},
		"listed before, and now for another": {nil, recovered(other, time.Minute), listed(id, "E1"), AlreadyKnown},
		"a long request id, which cannot be compared": {callback(none, "", strings.Repeat("R", 129)), "",
			told(none, "", strings.Repeat("R", 129)), Recovered},
	} {
		t.Run(name, func(t *testing.T) {
			execute(t, pool, `TRUNCATE upcall.upload_events, upcall.callback_ids, upcall.recovered_uploads, upcall.revoked_uploads,
				upcall.rollup_objects, upcall.rollup_versions, upcall.issued_uploads; UPDATE upcall.feed_log SET dropped_before = NULL`)
			if test.there != nil {
				record(t, r, test.there, false)
			}
			if test.sql != "" {
				execute(t, pool, test.sql)
			}
			if got := became(t, pool, test.tells); got != test.want {
				t.Errorf("it became %s, want %s", got, test.want)
			}
			if got := became(t, pool, test.tells); test.want == Recovered && got != AlreadyKnown {
				t.Errorf("a second time it became %s", got)
			}
			var noted int
			err := pool.QueryRow(t.Context(), `SELECT count(*) FROM upcall.recovered_uploads r
				JOIN upcall.upload_events e ON e.id = r.event_id AND e.received_at = r.received_at AND e.source = r.source
				WHERE e.recorded_xid IS NOT NULL AND (r.bucket, r.object_key) = (e.bucket, e.object_key)
					AND r.upload_id IS NOT DISTINCT FROM e.upload_id`).Scan(&noted)
			if want := map[bool]int{test.want == Recovered: 1}[true]; err != nil || noted != want {
				t.Errorf("%d are noted, %v; want %d", noted, err, want)
			}
		})
	}
}

// TestRecoverMany compares the events of one call with each other, too, and keeps their order.
func TestRecoverMany(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	id := uuid.NullUUID{UUID: uuid.New(), Valid: true}
	old := told(id, "E9", "R9")
	old.ReceivedAt = at.AddDate(-2, 0, 0) // no partition
	none := uuid.NullUUID{}
	events := []*event.Event{told(id, "E1", "R1"), told(id, "E1", "R2"), old, told(none, "", "R1"), told(none, "", "R3")}
	if got, want := mustRecover(t, pool, events...), []bool{true, false, true, false, true}; !slices.Equal(got, want) {
		t.Errorf("recorded: %v, want %v", got, want)
	}
	if got := mustRecover(t, pool, events...); slices.Contains(got, true) {
		t.Errorf("recorded again: %v", got)
	}
	if got := mustRecover(t, pool); len(got) != 0 {
		t.Errorf("of no events %v are recorded", got)
	}
	wantCount(t, pool, 3)
	bad := told(id, "E4", "R4")
	bad.Callback.Object = "\x00"
	if _, err := Recover(t.Context(), pool, []*event.Event{bad}); !errors.Is(err, event.ErrUnstorable) {
		t.Errorf("got %v, want ErrUnstorable", err)
	}
}

// TestRecoverWaitsForCallbacks has a callback in a transaction that began before: nothing may be recovered
// until it has ended, or the log would have both.
func TestRecoverWaitsForCallbacks(t *testing.T) {
	t.Parallel()
	upload := uuid.NullUUID{UUID: uuid.New(), Valid: true}
	for name, tells := range map[string]*event.Event{
		"by upload and ETag":                        told(upload, "E1", "R2"),
		"by request id":                             told(uuid.NullUUID{}, "E2", "R1"),
		"by the object of a callback without a key": listed(uuid.NullUUID{UUID: uuid.New(), Valid: true}, "E1"),
	} {
		t.Run(name, func(t *testing.T) { recoverWaits(t, upload, tells) })
	}
}

// recovering returns the transactions that have taken their place in the log.
const recovering = `SELECT virtualtransaction FROM pg_locks
	WHERE relation = 'upcall.refused_callbacks'::regclass AND mode = 'RowExclusiveLock'
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`

func recoverWaits(t *testing.T, upload uuid.NullUUID, tells *event.Event) {
	pool := dbtest.Pool(t, Open)
	if err := EnsurePartitions(t.Context(), pool, at); err != nil {
		t.Fatal(err)
	}
	executeArgs(t, pool, `INSERT INTO upcall.issued_uploads (upload_id, issued_at, expires_at, bucket, object_key)
		VALUES ($1, now(), now(), 'demo', 'a.txt')`, upload)
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())
	if _, err := tx.Exec(t.Context(), "SELECT pg_current_xact_id()"); err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	var over atomic.Bool
	group.Go(func() {
		defer over.Store(true)
		err := RecoverWith(t.Context(), pool, []*event.Event{tells}, func(_ pgx.Tx, b []Recovery) error {
			if b[0] != AlreadyKnown {
				t.Errorf("it became %s, though a callback was being recorded", b[0])
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	// It has taken its place in the log, waited, and begun again.
	for tries := make(map[string]bool); len(tries) < 2 && !over.Load(); {
		for _, try := range lines(t, pool, recovering) {
			tries[try] = true
		}
	}
	_, err = tx.Exec(t.Context(), `
		WITH recorded AS (
			INSERT INTO upcall.upload_events (id, received_at, etag, request_id, upload_id, source)
			VALUES (gen_random_uuid(), $1, 'E1', 'R1', $2, 'callback') RETURNING upload_id, id, received_at
		) INSERT INTO upcall.callback_ids (upload_id, id, received_at) TABLE recorded`, at, upload)
	if err == nil {
		err = tx.Commit(t.Context())
	}
	if err != nil {
		t.Error(err)
	}
	group.Wait()
}

// TestRecoverBesideSlowCommits records while transactions of others, which overlap, take a quarter of a second.
func TestRecoverBesideSlowCommits(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t)
	pool, theirs := dbtest.Open(t, url, Open), dbtest.Open(t, url, Open)
	var group sync.WaitGroup
	var over atomic.Bool
	const sleeping = "SELECT pg_sleep(0.2 + random() / 10) FROM pg_current_xact_id()"
	for range 4 {
		group.Go(func() {
			for !over.Load() {
				if _, err := theirs.Exec(context.Background(), sleeping); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	defer group.Wait()
	defer over.Store(true)
	for range 3 {
		id := uuid.NullUUID{UUID: uuid.New(), Valid: true}
		if got := mustRecover(t, pool, told(id, "E1", id.UUID.String())); !got[0] {
			t.Error("it was not recorded")
		}
	}
}

// TestRecoverHeld: a transaction that stays open is not waited for in silence.
func TestRecoverHeld(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())
	if _, err := tx.Exec(t.Context(), "SELECT pg_current_xact_id()"); err != nil {
		t.Fatal(err)
	}
	err = recoverFor(t.Context(), pool, []*event.Event{told(uuid.NullUUID{}, "E1", "R1")}, time.Millisecond,
		func(pgx.Tx, []Recovery) error { return nil })
	if !errors.Is(err, errHeld) || !errors.Is(err, event.ErrUnavailable) {
		t.Errorf("got %v, want errHeld", err)
	}
}

// TestRecoverWaitsForRollups: the part of the log that the roll-ups have not read is looked through only while it is
// not long.
func TestRecoverWaitsForRollups(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	if err := EnsurePartitions(t.Context(), pool, at); err != nil {
		t.Fatal(err)
	}
	executeArgs(t, pool, `INSERT INTO upcall.upload_events (id, received_at, request_id, source)
		SELECT gen_random_uuid(), $1, 'R' || n, 'callback' FROM generate_series(1, $2) AS n`, at, mostUnread)
	events := []*event.Event{told(uuid.NullUUID{}, "E1", "R1")}
	if _, err := Recover(t.Context(), pool, events); !errors.Is(err, errUnread) || !errors.Is(err, event.ErrUnavailable) {
		t.Errorf("got %v, want errUnread", err)
	}
	if _, err := FindKnown(t.Context(), pool, events); !errors.Is(err, errUnread) || !errors.Is(err, event.ErrUnavailable) {
		t.Errorf("got %v, want errUnread", err)
	}
	execute(t, pool, `INSERT INTO upcall.feed_consumers (name, system_identifier, timeline, recorded_xid, id)
		SELECT 'rollup', 1, 1, pg_snapshot_xmax(pg_current_snapshot()), gen_random_uuid()`)
	mustRecover(t, pool, events...)
}

// TestRecoverErased records nothing that was to be erased before.
func TestRecoverErased(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	e := told(uuid.NullUUID{UUID: uuid.New(), Valid: true}, "E1", "R1")
	e.Callback.Vars = map[string]json.RawMessage{"uid": json.RawMessage(`"42"`)}
	later := told(uuid.NullUUID{UUID: uuid.New(), Valid: true}, "E2", "R2")
	later.Callback.Vars, later.ReceivedAt = e.Callback.Vars, time.Now().Add(time.Hour)
	if _, err := eraser(t, pool, nil).Erase(t.Context(), EraseRequest{Variable: "uid", Value: "42"}); err != nil {
		t.Fatal(err)
	}
	mustRecover(t, pool, e, later)
	for _, got := range recorded(t, pool) {
		if kept := len(got.Callback.Vars) > 0; kept != (got.ID == later.ID) {
			t.Errorf("event of %s: variables are kept: %t", got.ReceivedAt, kept)
		}
	}
}

// TestNotificationsWait records what a notification tells beside the events, once.
func TestNotificationsWait(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	now := at.Add(time.Hour)
	r := newRecorder(t, Config{Pool: pool, Now: func() time.Time { return now }, KeepDays: 31, MaxEvents: 1})
	e := told(uuid.NullUUID{UUID: uuid.New(), Valid: true}, "E1", "R1")
	e.Callback.Size, e.Callback.CRC64 = new(int64(5)), new(uint64(1<<64-1))
	e.Callback.Vars = map[string]json.RawMessage{"uid": json.RawMessage(`"42"`)}
	e.ReceivedAt, e.Acknowledged = at.AddDate(-1, 0, 0), true // out of a spool, and old
	record(t, r, e, false)
	record(t, r, e, true)
	record(t, r, told(e.UploadID, "E2", "R2"), false)
	wantCount(t, pool, 0)
	rows, _ := pool.Query(t.Context(), "SELECT "+ownColumns+" FROM upcall.notifications WHERE noticed_at = $1 AND id = $2", now, e.ID)
	got, err := pgx.CollectExactlyOneRow(rows, scanEvent)
	if err != nil {
		t.Fatal(err)
	}
	want := *e
	want.Acknowledged = false
	got.ReceivedAt = got.ReceivedAt.UTC()
	if diff := cmp.Diff(&want, got, cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("notification (-want +got):\n%s", diff)
	}
}

func TestKeptSince(t *testing.T) {
	t.Parallel()
	if got, want := KeptSince(at, 31), time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC); !got.Equal(want) {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := KeptSince(at, 0); !got.IsZero() {
		t.Errorf("without retention: got %s", got)
	}
}
