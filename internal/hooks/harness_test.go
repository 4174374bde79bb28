package hooks

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/feed"
	"upcall/internal/testing/logtest"
	"upcall/internal/testing/wait"
	"upcall/internal/webhook"
)

// A world is a database with endpoints, and what receivers do with them.
type world struct {
	*Endpoints
	url  string
	pool *pgxpool.Pool
	logs *logtest.Buffer
	log  *slog.Logger

	clock *clock
}

// A clock runs by itself, unless it is stopped. Then it is moved on by hand.
type clock struct {
	mu      sync.Mutex
	stopped time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped.IsZero() {
		return time.Now()
	}
	return c.stopped
}

func (c *clock) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = t
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{url: dbtest.URL(t), clock: new(clock)}
	w.pool = dbtest.Open(t, w.url, eventstore.Open)
	w.log, w.logs = logtest.New()
	if err := eventstore.EnsurePartitions(t.Context(), w.pool, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := Keep(t.Context(), w.pool, time.Now()); err != nil {
		t.Fatal(err)
	}
	var err error
	w.Endpoints, err = NewEndpoints(Config{Pool: w.pool, Log: w.feed(t), Rules: loopback, Logger: w.log, Now: w.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// feed returns a log that runs until the test's end.
func (w *world) feed(t *testing.T) *feed.Log {
	t.Helper()
	log, err := feed.New(feed.Config{Pool: dbtest.Open(t, w.url, eventstore.OpenFeed), Logger: w.log})
	if err != nil {
		t.Fatal(err)
	}
	run(t, log.Run)
	return log
}

// run runs something until the returned function is called, or the test ends.
func run(t *testing.T, work func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { work(ctx); close(done) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// receiver delivers until the returned function is called, or the test ends.
func (w *world) receiver(t *testing.T, change ...func(*PumpConfig)) (*Pump, func()) {
	t.Helper()
	consumers, err := feed.NewConsumers(feed.ConsumersConfig{Pool: dbtest.Open(t, w.url, eventstore.OpenFeed)})
	if err != nil {
		t.Fatal(err)
	}
	config := PumpConfig{Pool: w.pool, Log: w.feed(t), Consumers: consumers, Rules: loopback, Logger: w.log, Now: w.clock.Now}
	for _, c := range change {
		c(&config)
	}
	pump, err := NewPump(config)
	if err != nil {
		t.Fatal(err)
	}
	run(t, consumers.Run)
	return pump, run(t, pump.Run)
}

func (w *world) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	if _, err := w.pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func (w *world) query(t *testing.T, result any, sql string, args ...any) {
	t.Helper()
	if err := w.pool.QueryRow(t.Context(), sql, args...).Scan(result); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func (w *world) count(t *testing.T, sql string, args ...any) (n int) {
	t.Helper()
	w.query(t, &n, "SELECT count(*) FROM upcall."+sql, args...)
	return n
}

// upload records n events with keys PREFIX1 and so on, and returns their ids.
func (w *world) upload(t testing.TB, prefix string, n int) (ids []uuid.UUID) {
	t.Helper()
	err := w.pool.QueryRow(t.Context(), `WITH new AS (
		INSERT INTO upcall.upload_events (id, received_at, bucket, object_key, mime_type, vars, source)
		SELECT gen_random_uuid(), clock_timestamp(), 'photos', $1 || n, 'image/jpeg', '{"uid":"7"}', 'callback'
		FROM generate_series(1, $2) AS n RETURNING id
	) SELECT array_agg(id) FROM new`, prefix, n).Scan(&ids)
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// add adds an endpoint for an application.
func (w *world) add(t *testing.T, name string, app *app, change ...func(*Settings)) Endpoint {
	t.Helper()
	s := Settings{Name: name, URL: app.URL}
	for _, c := range change {
		c(&s)
	}
	e, _, err := w.Add(t.Context(), s, app.secret, Start{})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// An app is an application that is told of uploads. It verifies each delivery.
type app struct {
	*httptest.Server
	secret webhook.Secret

	mu       sync.Mutex
	arrived  []arrival
	answer   func(n int, r *http.Request) int // the status of the nth request, from 1
	decide   func(n int, id string) int       // takes its place, while the lock is held
	after    string                           // Retry-After, unless it is ""
	problems []string
}

type arrival struct {
	id, key string
	at      time.Time
	kind    string // the type of the CloudEvent
	body    string
}

func newApp(t *testing.T, answer func(n int, r *http.Request) int) *app {
	t.Helper()
	a := &app{secret: webhook.NewSecret(), answer: answer}
	verifier, err := standardwebhooks.NewWebhook(a.secret.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var event struct {
			ID, Subject, Type string
		}
		a.mu.Lock()
		if err := verifier.VerifyIgnoringTimestamp(body, r.Header); err != nil || json.Unmarshal(body, &event) != nil ||
			event.ID != r.Header.Get("Webhook-Id") {
			a.problems = append(a.problems, string(body))
		}
		a.arrived = append(a.arrived, arrival{event.ID, event.Subject, time.Now(), event.Type, string(body)})
		n, answer := len(a.arrived), a.answer
		if a.after != "" {
			w.Header().Set("Retry-After", a.after)
		}
		if a.decide != nil {
			code := a.decide(n, event.ID)
			answer = func(int, *http.Request) int { return code }
		}
		a.mu.Unlock()
		if answer == nil {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		w.WriteHeader(answer(n, r))
	}))
	t.Cleanup(func() {
		a.CloseClientConnections()
		a.Close()
		if len(a.problems) > 0 {
			t.Errorf("%d deliveries are not signed or written as they should be: %s", len(a.problems), a.problems[0])
		}
	})
	return a
}

func (a *app) answers(answer func(n int, r *http.Request) int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = answer
}

func status(code int) func(int, *http.Request) int {
	return func(int, *http.Request) int { return code }
}

// requests returns how many there were.
func (a *app) requests() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.arrived)
}

// ids returns the ids of all requests.
func (a *app) ids() (ids []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, one := range a.arrived {
		ids = append(ids, one.id)
	}
	return ids
}

// waitFor waits until all events have arrived.
func (a *app) waitFor(t *testing.T, want []uuid.UUID) {
	t.Helper()
	wait.Until(t, "all events arrive", func() bool {
		there := make(map[string]bool)
		for _, id := range a.ids() {
			there[id] = true
		}
		return !slices.ContainsFunc(want, func(id uuid.UUID) bool { return !there[id.String()] })
	})
}
