package story

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/dbtest"
	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/feed"
	"upcall/internal/hooks"
	"upcall/internal/rollup"
	"upcall/internal/testing/wait"
	"upcall/internal/webhook"
	"upcall/migrations"
)

// A world is a database with everything that reads the log.
type world struct {
	*Stories
	url       string
	pool      *pgxpool.Pool
	log       *feed.Log
	consumers *feed.Consumers
	endpoints *hooks.Endpoints
	rollup    *rollup.Worker
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{url: dbtest.URL(t)}
	w.pool = dbtest.Open(t, w.url, eventstore.Open)
	for _, make := range []func(context.Context, *pgxpool.Pool, time.Time) error{eventstore.EnsurePartitions, hooks.Keep} {
		if err := make(t.Context(), w.pool, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	quiet, readers := slog.New(slog.DiscardHandler), dbtest.Open(t, w.url, eventstore.OpenFeed)
	var err error
	if w.log, err = feed.New(feed.Config{Pool: readers, Logger: quiet}); err != nil {
		t.Fatal(err)
	}
	if w.consumers, err = feed.NewConsumers(feed.ConsumersConfig{Pool: readers}); err != nil {
		t.Fatal(err)
	}
	if w.endpoints, err = hooks.NewEndpoints(hooks.Config{Pool: w.pool, Log: w.log, Rules: rules(t), Logger: quiet}); err != nil {
		t.Fatal(err)
	}
	w.rollup, err = rollup.New(rollup.Config{Pool: readers, Log: w.log, Consumers: w.consumers, Logger: quiet, Pause: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if w.Stories, err = New(Config{Pool: w.pool, Endpoints: w.endpoints}); err != nil {
		t.Fatal(err)
	}
	w.run(t, w.log.Run)
	w.run(t, w.consumers.Run)
	return w
}

func rules(t *testing.T) hooks.Rules {
	t.Helper()
	networks, err := hooks.ParseCIDRs([]string{"127.0.0.0/8"})
	if err != nil {
		t.Fatal(err)
	}
	return hooks.Rules{AllowHTTP: true, AllowedCIDRs: networks}
}

func (w *world) run(t *testing.T, work func(context.Context)) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { work(ctx); close(done) }()
	t.Cleanup(func() { stop(); <-done })
}

// deliver sends deliveries until the test's end.
func (w *world) deliver(t *testing.T) {
	t.Helper()
	pump, err := hooks.NewPump(hooks.PumpConfig{Pool: w.pool, Log: w.log, Consumers: w.consumers, Rules: rules(t), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	w.run(t, pump.Run)
}

// endpoint makes an endpoint whose application answers with a status.
func (w *world) endpoint(t *testing.T, name string, status int, filter hooks.Filter) {
	t.Helper()
	app := httptest.NewServer(http.HandlerFunc(func(to http.ResponseWriter, _ *http.Request) { to.WriteHeader(status) }))
	t.Cleanup(app.Close)
	_, _, err := w.endpoints.Add(t.Context(), hooks.Settings{Name: name, URL: app.URL, Filter: filter}, webhook.Secret{}, hooks.Start{})
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	if _, err := w.pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// issue writes a row of the ledger.
func (w *world) issue(t *testing.T, key string) uuid.UUID {
	t.Helper()
	id := uuid.New()
	w.exec(t, `INSERT INTO upcall.issued_uploads (upload_id, issued_at, expires_at, bucket, object_key, vars)
		VALUES ($1, now() - interval '1 minute', now() + interval '1 hour', 'photos', $2, '{"uid":"7"}')`, id, key)
	return id
}

var started = time.Now().Truncate(time.Microsecond)

// record writes an event. Events are a second apart.
func (w *world) record(t *testing.T, n int, key, request string, upload uuid.UUID, source event.Source) *event.Event {
	t.Helper()
	e := &event.Event{ID: uuid.New(), ReceivedAt: started.Add(time.Duration(n) * time.Second)}
	var of *uuid.UUID
	if upload != uuid.Nil {
		of = &upload
	}
	w.exec(t, `INSERT INTO upcall.upload_events (id, received_at, bucket, object_key, etag, request_id, upload_id, vars, source)
		VALUES ($1, $2, 'photos', $3, $4, $5, $6, '{"uid":"7"}', $7)`, e.ID, e.ReceivedAt, key, "E"+request, request, of, string(source))
	return e
}

// counted waits until the roll-ups have read all.
func (w *world) counted(t *testing.T) {
	t.Helper()
	w.run(t, w.rollup.Run)
	wait.Until(t, "all is counted", func() bool {
		var begun bool
		if err := w.pool.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM upcall.feed_consumers WHERE name = 'rollup')").Scan(&begun); err != nil {
			t.Fatal(err)
		}
		behind, err := w.rollup.Behind(t.Context())
		return err == nil && begun && len(behind) == 0
	})
}

// TestStory tells an upload from its issue to its deliveries.
func TestStory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.record(t, -100, "a.jpg", "BEFORE", uuid.Nil, event.SourceCallback) // before there are endpoints
	w.endpoint(t, "good", http.StatusNoContent, hooks.Filter{})
	w.endpoint(t, "bad", http.StatusInternalServerError, hooks.Filter{})
	w.endpoint(t, "other", http.StatusNoContent, hooks.Filter{Buckets: []string{"videos"}})
	id := w.issue(t, "a.jpg")
	if got := w.get(t, id); got.Issued.Status != "issued" || len(got.Events) != 0 || *got.ObjectKey != "a.jpg" || got.Issued.Vars["uid"] != "7" {
		t.Errorf("before it was used: %s", text(t, got))
	}
	e := w.record(t, 0, "a.jpg", "R1", id, event.SourceCallback)
	states := func(s *Story) (all []string) {
		for _, d := range s.Events[0].Deliveries {
			all = append(all, d.Endpoint+" "+d.State)
		}
		return all
	}
	if got := states(w.get(t, id)); !slices.Equal(got, []string{"bad pending", "good pending"}) {
		t.Errorf("before deliveries: %q", got)
	}
	w.deliver(t)
	wait.Until(t, "one endpoint has the event, and one failed", func() bool {
		return slices.Equal(states(w.get(t, id)), []string{"bad waiting", "good delivered"})
	})
	wait.Until(t, "the attempts are kept", func() bool { return len(w.get(t, id).Events[0].Deliveries[1].Attempts) == 1 })
	w.exec(t, "DELETE FROM upcall.hook_attempts")
	if got := states(w.get(t, id)); !slices.Equal(got, []string{"bad waiting", "good delivered"}) {
		t.Errorf("by filter and cursor alone: %q", got)
	}
	w.exec(t, "UPDATE upcall.hook_retries SET due_at = NULL")
	w.exec(t, `INSERT INTO upcall.confirmations (event_received_at, event_id, outcome, looked_at, at) VALUES ($1, $2, 'disputed', 'object', now())`,
		e.ReceivedAt, e.ID)
	w.exec(t, `INSERT INTO upcall.findings (id, event_received_at, event_id, kind, found, found_at) VALUES ($1, $2, $3, 'disputed', '{"size":9}', now())`,
		event.FindingID(e.ID, event.Disputed), e.ReceivedAt, e.ID)
	w.exec(t, `INSERT INTO upcall.refused_callbacks (digest, reason, refused_at, bucket, object_key, request_id, upload_id)
		VALUES (gen_random_uuid(), 'token_expired', now(), 'photos', 'a.jpg', 'R9', $1)`, id)
	got := w.get(t, id)
	if s := states(got); !slices.Equal(s, []string{"bad dead", "good delivered"}) || got.Issued.Status != "uploaded" ||
		got.Events[0].Confirmation.Outcome != "disputed" || got.Events[0].Findings[0].Kind != webhook.Disputed || len(got.Refusals) != 1 {
		t.Errorf("at last: %q %s", s, text(t, got))
	}
	w.exec(t, "INSERT INTO upcall.revoked_uploads (upload_id, revoked_at) VALUES ($1, now())", id)
	if got := w.get(t, id); got.Issued.Status != "revoked" || got.Issued.RevokedAt == nil {
		t.Errorf("revoked: %s", text(t, got))
	}
	// An event from before the endpoints were made was delivered to none, though their cursors are behind it.
	w.counted(t)
	before := w.find(t, Search{RequestID: "BEFORE", Limit: 1})
	if len(before) != 1 || len(before[0].Events[0].Deliveries) != 0 {
		t.Errorf("before the endpoints: %s", text(t, before))
	}
}

func (w *world) get(t *testing.T, id uuid.UUID) *Story {
	t.Helper()
	got, err := w.Get(t.Context(), id)
	if err != nil || got == nil {
		t.Fatalf("story of %s: %v, %v", id, got, err)
	}
	return got
}

func (w *world) find(t *testing.T, search Search) []Story {
	t.Helper()
	got, err := w.Find(t.Context(), search)
	if err != nil {
		t.Fatalf("%+v: %v", search, err)
	}
	return got
}

func text(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestFind finds every upload of an object by whatever is known of it, also those that were overwritten.
func TestFind(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first, unused := w.issue(t, "a.jpg"), w.issue(t, "a.jpg")
	one := w.record(t, 1, "a.jpg", "R1", first, event.SourceCallback)
	two := w.record(t, 2, "a.jpg", "R2", first, event.SourceCallback)
	w.record(t, 3, "a.jpg", "R3", uuid.Nil, event.SourceCallback)
	w.record(t, 4, "a.jpg", "R4", uuid.Nil, event.SourceCallback)
	w.record(t, 5, "b.jpg", "R5", uuid.Nil, event.SourceCallback)
	w.exec(t, `INSERT INTO upcall.refused_callbacks (digest, reason, refused_at, bucket, object_key, request_id)
		VALUES (gen_random_uuid(), 'bad_signature', now() - interval '1 day', 'photos', 'refused.jpg', 'R6')`)
	w.counted(t)
	const limit = 10
	for name, tt := range map[string]struct {
		search Search
		want   string // request ids by story
	}{
		"key":                {Search{Key: "a.jpg"}, "R3,R4 R1,R2 -"},
		"key and bucket":     {Search{Key: "a.jpg", Bucket: "photos"}, "R3,R4 R1,R2 -"},
		"key elsewhere":      {Search{Key: "a.jpg", Bucket: "videos"}, ""},
		"no key":             {Search{Key: "c.jpg"}, ""},
		"key of a refusal":   {Search{Key: "refused.jpg"}, "!R6"},
		"latest request":     {Search{RequestID: "R4"}, "R4"},
		"first request":      {Search{RequestID: "R1"}, "R1,R2"},
		"request in between": {Search{RequestID: "R3"}, "R3"},
		"only request":       {Search{RequestID: "R5"}, "R5"},
		"refused request":    {Search{RequestID: "R6"}, "!R6"},
		"no request":         {Search{RequestID: "R7"}, ""},
		"event":              {Search{EventID: two.ID, ReceivedAt: two.ReceivedAt}, "R1,R2"},
		"event of no time":   {Search{EventID: two.ID, ReceivedAt: one.ReceivedAt}, ""},
	} {
		tt.search.Limit = limit
		var got []string
		for _, s := range w.find(t, tt.search) {
			var ids []string
			for _, e := range s.Events {
				ids = append(ids, e.Event.Callback.RequestID)
			}
			for _, r := range s.Refusals {
				ids = append(ids, "!"+*r.RequestID)
			}
			if ids == nil && s.UploadID != nil && *s.UploadID == unused {
				ids = []string{"-"}
			}
			got = append(got, strings.Join(ids, ","))
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: found %q, want %q", name, got, tt.want)
		}
	}
	if got, err := w.Get(t.Context(), uuid.New()); got != nil || err != nil {
		t.Errorf("an upload that is not there: %v, %v", got, err)
	}
}

// TestSupersededStory says which event of an upload counts.
func TestSupersededStory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.issue(t, "a.jpg")
	w.record(t, 1, "a.jpg", "R1", id, event.SourceNotification)
	w.record(t, 2, "a.jpg", "R1", id, event.SourceCallback)
	w.counted(t)
	events := w.get(t, id).Events
	if len(events) != 2 || events[0].Counts || !events[1].Counts {
		t.Errorf("a notification and its callback: %s", text(t, events))
	}
}

// TestVariable finds uploads by a variable if there is an index on it, and says so if there is none.
func TestVariable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for n := range 5 {
		w.record(t, n, "a.jpg", "R", uuid.Nil, event.SourceCallback)
	}
	search := Search{Variable: "uid", Value: "7", Limit: 3}
	if _, err := w.Find(t.Context(), search); !errors.Is(err, ErrSearch) || !strings.Contains(err.Error(), "receiver index add uid") {
		t.Errorf("without an index: %v", err)
	}
	report := migrations.Report{Line: func(string) {}}
	if _, err := migrations.AddVariableIndex(t.Context(), w.url, "uid", report); err != nil {
		t.Fatal(err)
	}
	found := w.find(t, search)
	if len(found) != 1 || len(found[0].Events) != 3 || !found[0].Events[2].Event.ReceivedAt.Equal(started.Add(4*time.Second)) {
		t.Errorf("found %s", text(t, found))
	}
	search.Value = "8"
	if found := w.find(t, search); len(found) != 0 {
		t.Errorf("found %s", text(t, found))
	}
}

func TestSearchMistakes(t *testing.T) {
	t.Parallel()
	for name, search := range map[string]Search{
		"nothing":         {Limit: 1},
		"two ways":        {Key: "a", RequestID: "b", Limit: 1},
		"only a bucket":   {Bucket: "photos", Limit: 1},
		"bucket, request": {Bucket: "photos", RequestID: "b", Limit: 1},
		"only an event":   {EventID: uuid.New(), Limit: 1},
		"only a time":     {ReceivedAt: time.Now(), Key: "a", Limit: 1},
		"no limit":        {Key: "a"},
		"a large limit":   {Key: "a", Limit: MostStories + 1},
	} {
		if err := search.check(); !errors.Is(err, ErrSearch) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestPlans holds that no search reads a whole table, whatever is in it: with sequential scans ruled out, PostgreSQL
// chooses one only where there is no index.
func TestPlans(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	err := eventstore.Transact(t.Context(), w.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), "SET LOCAL enable_seqscan = off"); err != nil {
			return err
		}
		for sql, args := range map[string][]any{
			objectSQL:  {"a.jpg", "photos", 10},
			requestSQL: {"R1", 10},
			eventSQL:   {uuid.New(), time.Now()},
		} {
			rows, err := tx.Query(t.Context(), "EXPLAIN "+sql, args...)
			if err != nil {
				return err
			}
			plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				return err
			}
			for _, line := range plan {
				if strings.Contains(line, "Seq Scan on") && !strings.Contains(line, "rollup_generations") {
					t.Errorf("%s\nreads a whole table:\n%s", sql, strings.Join(plan, "\n"))
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
