package console

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"upcall/internal/admission"
	"upcall/internal/api"
	"upcall/internal/apikey"
	"upcall/internal/callbackspec"
	"upcall/internal/capture"
	"upcall/internal/dbtest"
	"upcall/internal/doctor"
	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/feed"
	"upcall/internal/hooks"
	"upcall/internal/spool"
	"upcall/internal/story"
	"upcall/internal/testing/logtest"
	"upcall/internal/testing/wait"
	"upcall/internal/vitals"
	"upcall/internal/webhook"
)

// A world is a console with something to show on each page, over real HTTP.
type world struct {
	url              string
	pool             *pgxpool.Pool
	endpoints        *hooks.Endpoints
	spool            *spool.Spool
	console          *Console
	captures         *capture.Dir
	captured         string // the name of one that a proxy changed
	logs             *logtest.Buffer
	viewer, operator string // keys
	upload           uuid.UUID
	hook             hooks.Endpoint // of an application that answers 204
	sent             chan string    // bodies that it got
}

func newWorld(t *testing.T) *world {
	t.Helper()
	database := dbtest.URL(t)
	w := &world{pool: dbtest.Open(t, database, eventstore.Open), sent: make(chan string, 100)}
	for _, make := range []func(context.Context, *pgxpool.Pool, time.Time) error{eventstore.EnsurePartitions, hooks.Keep} {
		if err := make(t.Context(), w.pool, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	w.viewer, w.operator = w.key(t, "eve", api.Viewer), w.key(t, "olga", api.Operator)
	var logger *slog.Logger
	logger, w.logs = logtest.New()
	log, err := feed.New(feed.Config{Pool: dbtest.Open(t, database, eventstore.OpenFeed), Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { log.Run(ctx); close(done) }()
	t.Cleanup(func() { stop(); <-done })
	networks, err := hooks.ParseCIDRs([]string{"127.0.0.0/8"})
	if err != nil {
		t.Fatal(err)
	}
	rules := hooks.Rules{AllowHTTP: true, AllowedCIDRs: networks}
	if w.endpoints, err = hooks.NewEndpoints(hooks.Config{Pool: w.pool, Log: log, Rules: rules, Logger: logger}); err != nil {
		t.Fatal(err)
	}
	stories, err := story.New(story.Config{Pool: w.pool, Endpoints: w.endpoints})
	if err != nil {
		t.Fatal(err)
	}
	if w.spool, err = spool.Open(t.Context(), spool.Config{Dir: t.TempDir(), MinFreeBytes: -1, Logger: logger}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.spool.Close() })
	signs := signs(t)
	examiner := w.capture(t, logger)
	server, err := api.New(api.Config{Log: log, Keys: eventstore.NewRoleKeys(w.pool), Endpoints: w.endpoints, Stories: stories,
		Fallback: api.OfSpool(w.spool), Vitals: signs, Logger: logger, Captures: examiner,
		Ready: func(context.Context) (string, error) { return "partitions: 3 months ahead", nil }})
	if err != nil {
		t.Fatal(err)
	}
	if w.console, err = New(Config{API: server, Logger: logger}); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	server.Register(mux)
	w.console.Register(mux)
	listener := httptest.NewServer(mux)
	t.Cleanup(listener.Close)
	t.Cleanup(server.Stop)
	w.url = listener.URL
	w.fill(t)
	return w
}

// capture captures refused callbacks, and has them examined.
func (w *world) capture(t *testing.T, logger *slog.Logger) *capture.Examiner {
	t.Helper()
	var err error
	if w.captures, err = capture.Open(capture.Config{Dir: t.TempDir(), Logger: logger}); err != nil {
		t.Fatal(err)
	}
	examiner, err := capture.NewExaminer(w.captures, doctor.Config{Admission: admission.Config{CallbackPaths: []string{"/oss/callback"}}})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now()
	for _, one := range []struct {
		reason admission.Reason
		file   string
	}{{"digest_mismatch", "stripped"}, {"digest_mismatch", "decoded"}, {"token_missing", "genuine"}} {
		file, err := os.ReadFile("../../cmd/receiver/testdata/doctor/" + one.file + ".http")
		if err != nil {
			t.Fatal(err)
		}
		r, err := doctor.Parse(file, doctor.Raw, 0)
		if err != nil {
			t.Fatal(err)
		}
		header := make(http.Header)
		for _, h := range r.Headers {
			header.Set(h.Name, h.Value)
		}
		header.Set("User-Agent", "<script>alert(1)</script>")
		at = at.Add(-time.Minute)
		w.captures.Put(&capture.Request{Reason: one.reason, At: at, Method: r.Method, Target: r.Target,
			Host: r.Get("Host"), Header: header, Body: r.Body})
	}
	ctx, stop := context.WithCancel(context.Background())
	written, examined := make(chan struct{}), make(chan struct{})
	go func() { w.captures.Run(ctx); close(written) }()
	go func() { examiner.Run(ctx); close(examined) }()
	t.Cleanup(func() { stop(); <-written; <-examined; w.captures.Close() })
	wait.Until(t, "the captures are written and examined", func() bool {
		list, err := examiner.List(t.Context(), "", 10)
		return err == nil && len(list) == 3 && !slices.ContainsFunc(list, func(s capture.Summary) bool { return s.Verdict == nil })
	})
	list, err := examiner.List(t.Context(), "", 10)
	if err != nil {
		t.Fatal(err)
	}
	w.captured = list[0].Name
	return examiner
}

// signs returns metrics with an hour behind them.
func signs(t *testing.T) *vitals.Sampler {
	t.Helper()
	registry := prometheus.NewRegistry()
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "upcall_requests_total"}, []string{"outcome"})
	months := prometheus.NewGauge(prometheus.GaugeOpts{Name: "upcall_partitions_ahead_months"})
	commits := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "upcall_commit_seconds", Buckets: []float64{.001, .005, .01, .1}})
	registry.MustRegister(requests, months, commits)
	months.Set(3)
	s := vitals.New(registry)
	for i := range 120 {
		requests.WithLabelValues("recorded").Add(float64(3000 + 40*(i%17)*(i%5)))
		requests.WithLabelValues("bad_signature").Add(float64(i % 7 / 5))
		commits.Observe(.001 * float64(1+i%9))
		s.Sample()
	}
	return s
}

// fill puts something on each page. Texts that others choose try to be more than texts.
func (w *world) fill(t *testing.T) {
	t.Helper()
	app := httptest.NewServer(http.HandlerFunc(func(to http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.sent <- string(body)
		to.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(app.Close)
	var err error
	w.hook, _, err = w.endpoints.Add(t.Context(), hooks.Settings{Name: "shop", URL: app.URL + "/hooks"}, webhook.Secret{}, hooks.Start{Oldest: true})
	if err != nil {
		t.Fatal(err)
	}
	w.upload = uuid.New()
	id := uuid.New()
	at := time.Now().Truncate(time.Microsecond)
	key := "avatars/<script>alert(1)</script>.jpg"
	w.exec(t, `INSERT INTO upcall.issued_uploads (upload_id, issued_at, expires_at, bucket, object_key, content_type, size, vars, api_key_id)
		VALUES ($1, now() - interval '1 minute', now() + interval '1 hour', 'photos', $2, 'image/jpeg', 4711, '{"uid":"7"}', 'shop')`, w.upload, key)
	w.exec(t, `INSERT INTO upcall.upload_events (id, received_at, bucket, object_key, etag, size, mime_type, request_id, upload_id, vars, source)
		VALUES ($1, $2, 'photos', $3, 'D41D8CD98F00B204E9800998ECF8427E', 4711, 'image/jpeg', '5B9CDDCC0123456789ABCDEF', $4, '{"uid":"7"}', 'callback')`,
		id, at, key, w.upload)
	w.exec(t, `INSERT INTO upcall.confirmations (event_received_at, event_id, outcome, looked_at, at) VALUES ($1, $2, 'disputed', 'object', now())`, at, id)
	w.exec(t, `INSERT INTO upcall.findings (id, event_received_at, event_id, kind, found, found_at)
		VALUES ($1, $2, $3, 'disputed', '{"size":9,"differs":["size"]}', now())`, event.FindingID(id, event.Disputed), at, id)
	w.exec(t, `INSERT INTO upcall.hook_attempts (endpoint_id, event_id, received_at, reason, attempt, at, delivered, status, took, problem, answer)
		VALUES ($1, $2, $3, 'first', 1, now(), false, 500, '12 ms', 'the application answered 500', '<b>no</b>'),
			($1, $2, $3, 'retry', 2, now(), true, 204, '8 ms', NULL, '')`, w.hook.ID, id, at)
	w.exec(t, `INSERT INTO upcall.hook_counts (endpoint_id, hour, outcome, attempts) VALUES ($1, date_trunc('hour', now()), 'delivered', 980),
		($1, date_trunc('hour', now()), 'failed', 20)`, w.hook.ID)
	w.exec(t, `INSERT INTO upcall.refused_callbacks (digest, reason, refused_at, source_addr, bucket, object_key, request_id, upload_id)
		SELECT gen_random_uuid(), CASE WHEN n % 3 = 0 THEN 'token_expired' ELSE 'bad_signature' END, now() - n * interval '1 minute', '192.0.2.1',
			'photos', $2, '5B9CDDCC0123456789ABCDEF', CASE n WHEN 3 THEN $1::uuid END FROM generate_series(1, 9) n`, w.upload, key)
	w.exec(t, `INSERT INTO upcall.reconcile_runs (bucket, stage, begun_at, listed_at, ended_at, listed, known, missing, recovered, problem) VALUES
		('photos', 'done', now(), now(), now(), 1234567, 1234565, 2, 2, NULL), ('videos', 'failed', now(), now(), now(), 0, 0, 0, 0, 'AccessDenied')`)
	w.exec(t, `INSERT INTO upcall.rollup_hourly (generation, hour, bucket, mime_type, source, uploads, bytes, new_objects, overwrites)
		SELECT 0, date_trunc('hour', now()) - d * interval '1 day', 'photos', 'image/jpeg', s, CASE s WHEN 'callback' THEN 100000 - d ELSE d END, 0, 0, 0
		FROM generate_series(0, 20) d, unnest(ARRAY['callback', 'notification', 'reconcile']) s`)
	for n := range 3 {
		e := &event.Event{ID: uuid.New(), ReceivedAt: at.Add(-time.Duration(n) * time.Minute), Callback: callbackspec.Callback{Bucket: "photos", Object: key}}
		if _, err := w.spool.Put(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	for w.spool.Stats().Queued > 0 {
		_, _ = w.spool.Move(t.Context(), func(context.Context, *event.Event) (bool, error) { return false, event.ErrUnstorable }, 100)
	}
}

func (w *world) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	if _, err := w.pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// key makes a key with a role.
func (w *world) key(t *testing.T, id string, role api.Role) string {
	t.Helper()
	text, hash, err := apikey.New(id)
	if err != nil {
		t.Fatal(err)
	}
	err = eventstore.NewRoleKeys(w.pool).Add(t.Context(), eventstore.APIKey{ID: id, Hash: hash[:], Role: string(role), CreatedAt: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// A person is someone with a browser.
type person struct {
	*http.Client
	world *world
}

// person returns someone who has logged in with a key, or not if it is "".
func (w *world) person(t *testing.T, key string) *person {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	p := &person{&http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, w}
	if key != "" {
		if got := p.post(t, "login", url.Values{"key": {key}}); got.status != http.StatusSeeOther {
			t.Fatalf("log in: %d %s", got.status, got.text)
		}
	}
	return p
}

// A view is a page as it was answered.
type answered struct {
	status int
	header http.Header
	text   string
}

func (p *person) do(t *testing.T, method, path string, form url.Values, header ...string) answered {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, p.world.url+Prefix+path, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	response, err := p.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(response.Body); err != nil {
		t.Fatal(err)
	}
	return answered{response.StatusCode, response.Header, text.String()}
}

func (p *person) get(t *testing.T, path string) answered {
	t.Helper()
	return p.do(t, http.MethodGet, path, nil)
}

func (p *person) post(t *testing.T, path string, form url.Values) answered {
	t.Helper()
	return p.do(t, http.MethodPost, path, form)
}

func (w *world) count(sql string) (n int) {
	_ = w.pool.QueryRow(context.Background(), sql).Scan(&n)
	return n
}

// letter returns the id of a dead letter.
func (w *world) letter() string {
	letters, _ := w.spool.DeadLetters(1)
	if len(letters) == 0 {
		return ""
	}
	return letters[0].ID.String()
}

// state is all that acts change.
func (w *world) state(t *testing.T) (state string) {
	t.Helper()
	const query = `SELECT coalesce(string_agg(e::text, '; ' ORDER BY id), '') || (SELECT count(*) FROM upcall.hook_attempts)
		|| (SELECT count(*) FROM upcall.hook_retries) FROM upcall.hook_endpoints e`
	if err := w.pool.QueryRow(t.Context(), query).Scan(&state); err != nil {
		t.Fatal(err)
	}
	stats, err := json.Marshal(w.spool.Stats())
	if err != nil {
		t.Fatal(err)
	}
	return state + string(stats)
}

// caller returns who a person is.
func (p *person) caller(t *testing.T) api.Caller {
	t.Helper()
	at, err := url.Parse(p.world.url + Prefix)
	if err != nil {
		t.Fatal(err)
	}
	r := new(http.Request)
	r.Header = make(http.Header)
	for _, c := range p.Jar.Cookies(at) {
		r.AddCookie(c)
	}
	s := p.world.console.sessions.find(r)
	if s == nil {
		t.Fatal("there is no session")
	}
	return s.caller
}

// discard is an answer that nobody reads.
type discard struct{}

func (discard) Header() http.Header         { return make(http.Header) }
func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) WriteHeader(int)             {}
