package feed

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/callbackspec"
	"upcall/internal/event"
	"upcall/internal/eventstore"
)

// TestSupersedes: a callback that comes after its upload was recovered names the event whose place it takes,
// to every reader of the log.
func TestSupersedes(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		received, recovered time.Duration // ago
		others              int           // that were recovered
	}{
		"received lately":                           {0, 0, 0},
		"received long ago":                         {3 * time.Hour, 0, 0},
		"received lately, recovered long ago":       {0, 3 * time.Hour, 0},
		"received lately, recovered long ago, many": {0, 3 * time.Hour, 2000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			supersedes(t, time.Now().Add(-test.received), test.recovered, test.others)
		})
	}
}

func supersedes(t *testing.T, received time.Time, recovered time.Duration, others int) {
	w := shared(t)
	upload, other, none := uuid.NullUUID{UUID: uuid.New(), Valid: true}, uuid.NullUUID{UUID: uuid.New(), Valid: true}, uuid.NullUUID{}
	made := func(source event.Source, upload uuid.NullUUID, request, etag string) *event.Event {
		return &event.Event{ID: uuid.New(), ReceivedAt: received, UploadID: upload, Source: source, Callback: callbackspec.Callback{
			Bucket: "b", Object: "k", ETag: etag, RequestID: request}}
	}
	insert := func(e *event.Event) {
		exec(t, w.pool, `INSERT INTO upcall.upload_events (id, received_at, bucket, object_key, etag, request_id, upload_id, source)
			VALUES ($1, $2, $3, nullif($4, ''), nullif($5, ''), nullif($6, ''), $7, $8)`,
			e.ID, e.ReceivedAt, e.Callback.Bucket, e.Callback.Object, e.Callback.ETag, e.Callback.RequestID, e.UploadID, string(e.Source))
	}
	at := func(e *event.Event, at time.Time) *event.Event { e.ReceivedAt = at; return e }
	elsewhere := func(e *event.Event) *event.Event { e.Callback.Bucket = "c"; return e }
	bare := func(issued, request, etag string) *event.Event { // a callback that names no key
		e := made(event.SourceCallback, uuid.NullUUID{UUID: uuid.New(), Valid: true}, request, etag)
		e.Callback.Object = ""
		exec(t, w.pool, `INSERT INTO upcall.issued_uploads (upload_id, issued_at, expires_at, bucket, object_key)
			VALUES ($1, now(), now(), 'b', $2)`, e.UploadID, issued)
		return e
	}
	start := must(w.Now(t.Context()))(t)
	before := made(event.SourceCallback, upload, "R0", "E0") // tells of something else
	insert(before)
	told, listed := made(event.SourceNotification, upload, "R1", "E1"), made(event.SourceReconcile, other, "", `"e2"`)
	for _, e := range []*event.Event{told, listed} {
		if got, err := eventstore.Recover(t.Context(), w.pool, []*event.Event{e}); err != nil || !got[0] {
			t.Fatalf("recovered %v, %v", got, err)
		}
	}
	exec(t, w.pool, "UPDATE upcall.recovered_uploads SET recovered_at = now() - $1::interval", recovered)
	exec(t, w.pool, `INSERT INTO upcall.recovered_uploads (event_id, received_at, source, request_id)
		SELECT gen_random_uuid(), now(), 'notification', 'S' || n FROM generate_series(1, $1) AS n`, others)
	want := map[uuid.UUID]uuid.UUID{before.ID: uuid.Nil, told.ID: uuid.Nil, listed.ID: uuid.Nil}
	for _, test := range []struct {
		late       *event.Event
		supersedes *event.Event
	}{
		{made(event.SourceCallback, upload, "R1", "E1"), told},
		{made(event.SourceCallback, upload, "R2", `"e1"`), told},
		{made(event.SourceCallback, none, "R1", ""), told},
		{made(event.SourceCallback, other, "R3", "E2"), listed},
		{made(event.SourceNotification, other, "R4", "E2"), listed},
		{made(event.SourceCallback, upload, "R8", "e2"), listed}, // the listing took it for another upload to its key
		{made(event.SourceNotification, none, "R9", "E2"), listed},
		{at(made(event.SourceCallback, upload, "R10", "E2"), received.Add(event.ListedApart)), listed},
		{at(made(event.SourceCallback, upload, "R11", "E2"), received.Add(event.ListedApart+time.Second)), nil},
		{at(made(event.SourceCallback, upload, "R12", "E2"), received.Add(-event.ListedApart-time.Second)), nil},
		{elsewhere(made(event.SourceCallback, upload, "R13", "E2")), nil},
		{bare("k", "R14", "e2"), listed},
		{bare("k", "R15", "E3"), nil},
		{bare("other", "R16", "E2"), nil},
		{at(bare("k", "R17", "E2"), received.Add(event.ListedApart+time.Second)), nil},
		{made(event.SourceNotification, upload, "R5", "E1"), nil},
		{made(event.SourceReconcile, upload, "", "E1"), nil},
		{made(event.SourceCallback, upload, "R6", "E6"), nil},
		{made(event.SourceCallback, none, "R7", "E1"), nil},
		{made(event.SourceCallback, none, "", ""), nil},
		{made("spool", upload, "R1", "E1"), nil},
	} {
		insert(test.late)
		want[test.late.ID] = uuid.Nil
		if test.supersedes != nil {
			want[test.late.ID] = test.supersedes.ID
		}
	}
	check := func(name string, entries []Entry) {
		t.Helper()
		if len(entries) != len(want) {
			t.Errorf("%s: %d entries, want %d", name, len(entries), len(want))
		}
		for _, e := range entries {
			if got := e.Event.Supersedes; got.UUID != want[e.Event.ID] || got.Valid != (want[e.Event.ID] != uuid.Nil) {
				t.Errorf("%s: the %s of request %s supersedes %v, want %s",
					name, e.Event.Source, e.Event.Callback.RequestID, got, want[e.Event.ID])
			}
		}
	}
	_, _ = drainUntil(t, w.Log, start, len(want))
	page, err := w.Page(t.Context(), start, 1000)
	if err != nil {
		t.Fatal(err)
	}
	check("page", page.Entries)
	next, err := w.another(t).Next(t.Context(), start, 1000)
	if err != nil {
		t.Fatal(err)
	}
	check("next", next.Entries)
}

// TestSupersedesCostsLittle: with many recovered uploads, a page still touches few pages of PostgreSQL, and while
// there are none next to none more than it did.
func TestSupersedesCostsLittle(t *testing.T) {
	t.Parallel()
	w := shared(t)
	start := must(w.Now(t.Context()))(t)
	exec(t, w.pool, `INSERT INTO upcall.upload_events (id, received_at, bucket, object_key, etag, request_id, upload_id, source)
		SELECT gen_random_uuid(), now(), 'b', 'k' || n, 'E', 'R' || n, gen_random_uuid(), 'callback'
		FROM generate_series(1, 5000) AS n`)
	_, _ = drainUntil(t, w.Log, start, 1)
	none := buffers(t, w, start.position)
	recover := func(n int) {
		exec(t, w.pool, `INSERT INTO upcall.recovered_uploads
			(event_id, received_at, source, bucket, object_key, etag, request_id, upload_id)
			SELECT gen_random_uuid(), now(), CASE n % 2 WHEN 0 THEN 'notification' ELSE 'reconcile' END, 'b', 'other' || n, 'E',
				'S' || n, gen_random_uuid() FROM generate_series(1, $1) AS n`, n)
	}
	recover(50)
	some := buffers(t, w, start.position)
	recover(20_000)
	many := buffers(t, w, start.position)
	t.Logf("a page of 100 entries takes %d buffers, with 50 recovered uploads %d, with 20,000 %d", none, some, many)
	if none > 150 {
		t.Errorf("it took %d buffers without recovered uploads, more than 150", none)
	}
	if limit := none + 200; some > limit {
		t.Errorf("it took %d buffers with few recovered, more than %d", some, limit)
	}
	if limit := none + 100*10; many > limit {
		t.Errorf("it took %d buffers with many recovered, more than %d: is an index not used?", many, limit)
	}
}
