package receiver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"sync/atomic"
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
)

// A lonely primary can be made to wait for a synchronous standby that does not answer.
type lonely struct{ pool *pgxpool.Pool }

func (p lonely) exec(t *testing.T, sql string) {
	t.Helper()
	if _, err := p.pool.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

// waits makes commits wait, or stops that.
func (p lonely) waits(t *testing.T, does bool) {
	t.Helper()
	names := ""
	if does {
		names = "nobody"
	}
	p.exec(t, "ALTER SYSTEM SET synchronous_standby_names = '"+names+"'")
	p.exec(t, "SELECT pg_reload_conf()")
	// The setting applies once the checkpointer has read it, which only a commit can show.
	wait.Until(t, "commits wait for the standby, or do not", func() bool {
		done := make(chan error, 1)
		go func() {
			_, err := p.pool.Exec(t.Context(), "SELECT pg_logical_emit_message(true, 'test', '')")
			done <- err
		}()
		waited := false
		wait.Until(t, "a commit ends or waits", func() bool {
			waited = waited || p.cut(t, "%'test'%") > 0
			return waited || len(done) > 0
		})
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		return waited == does
	})
}

const waiting = "FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE $1"

// cut ends the wait of commits of statements like that, as an operator or a shutdown does: PostgreSQL
// then warns, and answers as if nothing was amiss.
func (p lonely) cut(t *testing.T, like string) (n int) {
	t.Helper()
	err := p.pool.QueryRow(t.Context(), "SELECT count(pg_cancel_backend(pid)) "+waiting, like).Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (p lonely) waiters(t *testing.T, like string) (n int) {
	t.Helper()
	if err := p.pool.QueryRow(t.Context(), "SELECT count(*) "+waiting, like).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// A promise is a call whose success says that something holds, also after a failover.
type promise struct {
	name string
	make func(ctx context.Context) error
}

// TestNothingCountsBeforeItIsReplicated runs each way to write with a synchronous standby that does not
// answer. None is acknowledged while it waits; none whose wait is interrupted is; and a repeat of that,
// which finds the row here, is not either. What only reads what it then hands out waits as well.
func TestNothingCountsBeforeItIsReplicated(t *testing.T) {
	t.Parallel()
	server := dbtest.NewServer(t)
	primary := lonely{dbtest.Open(t, server.URL(), eventstore.Open)}
	for _, p := range promises(t, server.URL(), primary.pool) {
		t.Run(p.name, func(t *testing.T) { // in this order: some need what others have made
			for _, cut := range []bool{true, true, false} {
				primary.try(t, p, cut)
			}
		})
	}
}

// try runs one with the standby missing. It cuts its waits, or lets the standby come back.
func (p lonely) try(t *testing.T, promised promise, cut bool) {
	t.Helper()
	p.waits(t, true)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- promised.make(ctx) }()
	waited := false
	wait.Until(t, "it ends, or waits for the standby", func() bool {
		waiters := p.waiters(t, "%")
		if waited = waited || waiters > 0; waiters > 0 && cut {
			p.cut(t, "%") // of each statement of it
		}
		return len(done) > 0 || waited && !cut
	})
	if !cut {
		p.waits(t, false)
	}
	err := <-done
	switch {
	case err == nil && !waited:
		t.Errorf("cut %t: it does not wait for the standby", cut)
	case err == nil && cut:
		t.Error("it is acknowledged, though its wait was interrupted")
	case err != nil && !cut && !slices.ContainsFunc(repeated, func(refused error) bool { return errors.Is(err, refused) }):
		t.Errorf("with the standby: %v", err)
	}
}

// repeated are the errors of what is not done twice.
var repeated = []error{eventstore.ErrExists, hooks.ErrExists, hooks.ErrNotFound, errAgain}

// errAgain says that a repeat is refused, which needs no standby.
var errAgain = errors.New("it is done already")

func promises(t *testing.T, url string, pool *pgxpool.Pool) []promise {
	t.Helper()
	w := newWriters(t, url, pool)
	w.lease(t, 6)
	callback, noticed, found := w.event("callback", event.SourceCallback), w.event("noticed", event.SourceNotification), w.event("found", event.SourceReconcile)
	issued := eventstore.IssuedUpload{ID: uuid.New(), Bucket: "demo", Object: "a", IssuedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour)}
	record := func(e *event.Event) func(context.Context) error {
		return func(ctx context.Context) error { _, err := w.recorder.Record(ctx, e); return err }
	}
	id := uuid.New().String()
	on := func(change func(ctx context.Context) (hooks.Endpoint, error)) func(context.Context) error {
		return func(ctx context.Context) error { _, err := change(ctx); return err }
	}
	return append([]promise{
		{"callback", record(callback)},
		{"lookup of a callback", func(ctx context.Context) error {
			_, err := w.recorder.Find(ctx, callback.ID, callback.UploadID)
			return err
		}},
		{"readiness", w.recorder.Ping},
		{"notification", record(noticed)},
		{"recovered event", func(ctx context.Context) error {
			recorded, err := eventstore.Recover(ctx, w.pool, []*event.Event{found})
			if err == nil && !recorded[0] {
				return errAgain // and the run that is told so commits what it has done
			}
			return err
		}},
		{"folded notification", func(ctx context.Context) error {
			return eventstore.RecoverWith(ctx, w.pool, []*event.Event{noticed}, func(tx pgx.Tx, became []eventstore.Recovery) error {
				n, err := eventstore.Settle(ctx, tx, []uuid.UUID{noticed.ID}, eventstore.Outcome(became[0]), time.Now())
				if err == nil && n == 0 {
					return errAgain
				}
				return err
			})
		}},
		{"removal", func(ctx context.Context) error {
			return eventstore.NoteRemovals(ctx, w.pool, []eventstore.Removal{{Bucket: "demo", Object: "a", At: issued.IssuedAt, Source: "notification"}})
		}},
		{"issued upload", func(ctx context.Context) error { return w.ledger.Issue(ctx, issued) }},
		{"revocation", func(ctx context.Context) error { return w.uploads.Revoke(ctx, issued.ID) }},
		{"issuer's key", func(ctx context.Context) error {
			return w.keys.Add(ctx, eventstore.APIKey{ID: "web", Hash: make([]byte, 32), Policy: "photos", CreatedAt: time.Now()})
		}},
		{"issuer's key revoked", func(ctx context.Context) error { return w.keys.Revoke(ctx, "web") }},
		{"receiver's key", func(ctx context.Context) error {
			return w.roles.Add(ctx, eventstore.APIKey{ID: id, Hash: make([]byte, 32), Role: "viewer", CreatedAt: time.Now()})
		}},
		{"receiver's key revoked", func(ctx context.Context) error { return w.roles.Revoke(ctx, id) }},
		{"page of the log", func(ctx context.Context) error {
			page, err := w.log.Page(ctx, w.oldest, 10)
			if err == nil && len(page.Entries) == 0 {
				t.Error("the page is empty")
			}
			return err
		}},
		{"consumer's cursor", func(ctx context.Context) error { return w.commit(ctx, nil) }},
		{"consumer's work", func(ctx context.Context) error { return w.commit(ctx, func(pgx.Tx) error { return nil }) }},
		{"rebuild of roll-ups", func(ctx context.Context) error { return rollup.Rebuild(ctx, w.pool) }},
		{"erasure", func(ctx context.Context) error {
			_, err := w.eraser.Erase(ctx, eventstore.EraseRequest{Variable: "uid", Value: "nobody"})
			return err
		}},
		{"endpoint added", func(ctx context.Context) error {
			_, _, err := w.endpoints.Add(ctx, hooks.Settings{Name: "added", URL: "http://127.0.0.1:1/"}, webhook.Secret{}, hooks.Start{Oldest: true})
			return err
		}},
		{"endpoint changed", on(func(ctx context.Context) (hooks.Endpoint, error) {
			return w.endpoints.Update(ctx, "hook", hooks.Change{MaxInFlight: new(3)})
		})},
		{"endpoint paused", on(func(ctx context.Context) (hooks.Endpoint, error) { return w.endpoints.Pause(ctx, "hook") })},
		{"endpoint resumed", on(func(ctx context.Context) (hooks.Endpoint, error) { return w.endpoints.Resume(ctx, "hook") })},
		{"secret rotated", on(func(ctx context.Context) (hooks.Endpoint, error) {
			e, _, err := w.endpoints.Rotate(ctx, "hook", webhook.Secret{}, time.Hour)
			return e, err
		})},
		{"redelivery", func(ctx context.Context) error {
			_, err := w.endpoints.Redeliver(ctx, hooks.Redelivery{Endpoint: "hook", Event: callback.ID})
			return err
		}},
	}, promise{"endpoint removed", func(ctx context.Context) error { return w.endpoints.Remove(ctx, "hook") }})
}

// writers are all that write, on one database.
type writers struct {
	pool      *pgxpool.Pool
	recorder  *eventstore.Recorder
	ledger    *eventstore.Ledger
	uploads   *eventstore.Uploads
	keys      *eventstore.APIKeys
	roles     *eventstore.APIKeys
	eraser    *eventstore.Eraser
	log       *feed.Log
	oldest    feed.Cursor
	consumers *feed.Consumers
	leases    []*feed.Lease
	endpoints *hooks.Endpoints
}

func newWriters(t *testing.T, url string, pool *pgxpool.Pool) *writers {
	t.Helper()
	w := &writers{pool: pool, uploads: eventstore.NewUploads(pool), keys: eventstore.NewAPIKeys(pool), roles: eventstore.NewRoleKeys(pool)}
	recording, reading := dbtest.Open(t, url, eventstore.OpenRecorder), dbtest.Open(t, url, eventstore.OpenFeed)
	var errs [6]error
	w.recorder, errs[0] = eventstore.NewRecorder(eventstore.Config{Pool: recording, CommitTimeout: time.Minute})
	w.ledger, errs[1] = eventstore.NewLedger(eventstore.Config{Pool: recording, CommitTimeout: time.Minute})
	w.log, errs[2] = feed.New(feed.Config{Pool: reading, Logger: slog.New(slog.DiscardHandler)})
	w.consumers, errs[3] = feed.NewConsumers(feed.ConsumersConfig{Pool: reading, Lease: time.Hour})
	w.endpoints, errs[4] = hooks.NewEndpoints(hooks.Config{Pool: pool, Log: w.log, Logger: slog.New(slog.DiscardHandler),
		Rules: hooks.Rules{AllowHTTP: true, AllowedCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}})
	errs[5] = eventstore.EnsurePartitions(t.Context(), pool, time.Now())
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.recorder.Close)
	t.Cleanup(w.ledger.Close)
	w.eraser = eventstore.NewEraser(pool, dbtest.Open(t, url, eventstore.OpenReader), func(string) {})
	var err error
	if w.oldest, err = w.log.Oldest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.endpoints.Add(t.Context(), hooks.Settings{Name: "hook", URL: "http://127.0.0.1:1/"}, webhook.Secret{}, hooks.Start{Oldest: true}); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *writers) event(object string, source event.Source) *event.Event {
	e := &event.Event{ID: uuid.New(), ReceivedAt: time.Now(), UploadID: uuid.NullUUID{UUID: uuid.New(), Valid: true}, Source: source}
	e.Callback.Bucket, e.Callback.Object, e.Callback.ETag = "demo", object, "etag"
	return e
}

// commit moves the cursor of a consumer whose lease was not used before: a commit that is cut ends it.
func (w *writers) commit(ctx context.Context, work func(pgx.Tx) error) error {
	lease := w.leases[0]
	w.leases = w.leases[1:]
	return lease.Commit(ctx, w.oldest, work)
}

// lease makes consumers and acquires their leases.
func (w *writers) lease(t *testing.T, n int) {
	t.Helper()
	var names []string
	err := pgx.BeginFunc(t.Context(), w.pool, func(tx pgx.Tx) error {
		for i := range n {
			names = append(names, fmt.Sprintf("test/%d", i))
			if err := feed.AddConsumer(t.Context(), tx, names[i], w.oldest); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		w.leases, err = w.consumers.Acquire(t.Context(), names)
	}
	if err != nil || len(w.leases) != n {
		t.Fatalf("%d leases: %v", len(w.leases), err)
	}
}

// TestRedeliveryIsReplicated: an operator has an event sent again that is on this server alone, because
// its commit was interrupted. It does not leave the receiver before the standby has it.
func TestRedeliveryIsReplicated(t *testing.T) {
	t.Parallel()
	var delivered atomic.Int32
	app := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		delivered.Add(1)
	}))
	t.Cleanup(app.Close)
	server := dbtest.NewServer(t)
	primary := lonely{dbtest.Open(t, server.URL(), eventstore.Open)}
	w := newWriters(t, server.URL(), primary.pool)
	if err := w.endpoints.Remove(t.Context(), "hook"); err != nil {
		t.Fatal(err)
	}
	rules := hooks.Rules{AllowHTTP: true, AllowedCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	e := w.event("again", event.SourceCallback)
	if _, err := w.recorder.Record(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	// It is not told of the event when that is read from the log.
	if _, _, err := w.endpoints.Add(t.Context(), hooks.Settings{Name: "app", URL: app.URL}, webhook.Secret{}, hooks.Start{}); err != nil {
		t.Fatal(err)
	}
	start(t, Config{DatabaseURL: server.URL(), Hooks: HooksConfig{Rules: rules}})
	wait.Until(t, "the endpoint has a sender", func() bool {
		return count(t, server.URL(), "SELECT count(*) FROM upcall.feed_consumers WHERE lease_until > now() AND name LIKE 'hook%'") == 1
	})
	primary.waits(t, true)
	const enqueue = "WITH told AS (UPDATE upcall.hook_changes SET version = version + 1) " +
		"INSERT INTO upcall.hook_retries (endpoint_id, event_id, received_at, kind, reason, attempts, due_at, failed_at) " +
		"SELECT id, $1, $2, 'recorded', 'redelivery', 0, now(), now() FROM upcall.hook_endpoints"
	conn, err := primary.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	if _, err := conn.Exec(t.Context(), "SET synchronous_commit = local"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), enqueue, e.ID, e.ReceivedAt); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, "the sender waits for the standby", func() bool {
		return delivered.Load() > 0 || primary.waiters(t, "%AS wanted (id, at, kind)%") > 0
	})
	if delivered.Load() > 0 {
		t.Error("an event was sent that only this server has")
	}
	primary.waits(t, false)
	wait.Until(t, "the event is sent", func() bool { return delivered.Load() > 0 })
}
