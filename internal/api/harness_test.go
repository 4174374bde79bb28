package api

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"upcall/internal/apikey"
	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/feed"
	"upcall/internal/hooks"
	"upcall/internal/story"
	"upcall/internal/testing/wait"
	"upcall/internal/vitals"
)

// A world is an API on a database of its own, over real HTTP.
type world struct {
	*Server
	url, database    string
	pool             *pgxpool.Pool
	viewer, operator string // keys

	servers map[string]*httptest.Server // by their URLs
	stops   map[string]func()
}

func newWorld(t *testing.T, change func(*Config)) *world {
	t.Helper()
	w := &world{database: dbtest.URL(t), servers: make(map[string]*httptest.Server), stops: make(map[string]func())}
	w.pool = dbtest.Open(t, w.database, eventstore.Open)
	if err := eventstore.EnsurePartitions(t.Context(), w.pool, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := hooks.Keep(t.Context(), w.pool, time.Now()); err != nil {
		t.Fatal(err)
	}
	w.viewer, w.operator = w.key(t, "viewer", Viewer), w.key(t, "operator", Operator)
	w.Server, w.url = w.another(t, change)
	return w
}

// another starts another server on the same database, as another receiver has.
func (w *world) another(t *testing.T, change func(*Config)) (*Server, string) {
	t.Helper()
	discard := slog.New(slog.DiscardHandler)
	log, err := feed.New(feed.Config{Pool: dbtest.Open(t, w.database, eventstore.OpenFeed), Logger: discard})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { log.Run(ctx); close(done) }()
	t.Cleanup(func() { stop(); <-done })
	rules := hooks.Rules{AllowHTTP: true}
	if rules.AllowedCIDRs, err = hooks.ParseCIDRs([]string{"127.0.0.0/8"}); err != nil {
		t.Fatal(err)
	}
	endpoints, err := hooks.NewEndpoints(hooks.Config{Pool: w.pool, Log: log, Rules: rules, Logger: discard})
	if err != nil {
		t.Fatal(err)
	}
	stories, err := story.New(story.Config{Pool: w.pool, Endpoints: endpoints})
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Log: log, Keys: eventstore.NewRoleKeys(w.pool), Endpoints: endpoints, Stories: stories, Logger: discard,
		Vitals: vitals.New(prometheus.NewRegistry()), Ready: func(context.Context) (string, error) { return "all is well", nil },
		Behind: []func(context.Context) ([]string, error){endpoints.Behind}}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	s.Register(mux)
	server := httptest.NewUnstartedServer(mux)
	server.Config.ReadTimeout = 200 * time.Millisecond // so that a wait that keeps it is cut short
	server.Config.WriteTimeout = 300 * time.Millisecond
	server.Start()
	t.Cleanup(server.Close)
	t.Cleanup(s.Stop)
	w.servers[server.URL], w.stops[server.URL] = server, func() { s.Stop(); server.Close() }
	return s, server.URL
}

// key makes a key with a role.
func (w *world) key(t *testing.T, id string, role Role) string {
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

// add inserts events and returns their ids, in the order of the log, once the log tells them:
// transactions of other tests hold it up, too.
func (w *world) add(t *testing.T, bucket string, n int) (ids []string) {
	t.Helper()
	for range n {
		id := uuid.New().String()
		if _, err := w.pool.Exec(t.Context(), `INSERT INTO upcall.upload_events (id, received_at, bucket, object_key, vars, source)
			VALUES ($1, now(), $2, $3, '{"user":"42"}', 'callback')`, id, bucket, bucket+"/"+id); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	wait.Until(t, "the log tells all events", func() (told bool) {
		const query = "SELECT max(recorded_xid) < pg_snapshot_xmin(pg_current_snapshot()) FROM upcall.upload_events"
		if err := w.pool.QueryRow(t.Context(), query).Scan(&told); err != nil {
			t.Fatal(err)
		}
		return told
	})
	return ids
}

// A reply is what a call returned.
type reply struct {
	status int
	header http.Header
	text   string
	body   struct {
		Events []struct {
			ID     string `json:"event_id"`
			Bucket string
		}
		Next, Detail, Type, Oldest, Title string
		Status                            int
		Errors                            []struct{ Field, Detail string }
		Behind                            []string
	}
	hook struct {
		ID, Name, State, Secret string
		Buckets, Headers        []string
		KeyPrefixes             []string `json:"key_prefixes"`
		Vars                    map[string]string
		MaxInFlight             int     `json:"max_in_flight"`
		RotatedUntil            *string `json:"rotated_until"`
	}
}

func (w *world) call(t *testing.T, method, path, key, body string) reply {
	t.Helper()
	return call(t, method, w.url+path, key, body)
}

func call(t *testing.T, method, url, key, body string) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		r.Header.Set("Authorization", "Bearer "+key)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	return send(t, r)
}

func send(t *testing.T, r *http.Request) reply {
	t.Helper()
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	documentOf(t).CheckAnswer(t, r, response, text)
	var got reply
	if strings.HasSuffix(response.Header.Get("Content-Type"), "json") {
		got = parse(t, text)
	}
	got.status, got.header, got.text = response.StatusCode, response.Header, string(text)
	return got
}

// parse reads the body of an answer.
func parse(t *testing.T, text []byte) (got reply) {
	t.Helper()
	if err := json.Unmarshal(text, &got.body); err != nil {
		t.Errorf("%v in %s", err, text)
	}
	_ = json.Unmarshal(text, &got.hook) // only some answers are of one
	return got
}

func (r *reply) ids() (ids []string) {
	for _, e := range r.body.Events {
		ids = append(ids, e.ID)
	}
	return ids
}

// An sse is an open stream.
type sse struct {
	response *http.Response
	lines    *bufio.Scanner
}

func newSSE(response *http.Response) *sse { return &sse{response, bufio.NewScanner(response.Body)} }

// get begins a request.
func get(t *testing.T, url, key, last string) (*http.Response, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+key)
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	return http.DefaultClient.Do(r)
}

func (w *world) stream(t *testing.T, url, last string) *sse {
	t.Helper()
	response, err := get(t, url, w.viewer, last)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	documentOf(t).CheckAnswer(t, response.Request, response, nil)
	return newSSE(response)
}

// next returns the id and the event of the next block that is not a comment.
func (s *sse) next(t *testing.T) (cursor, id string) {
	t.Helper()
	cursor, id, err := s.read()
	if err != nil {
		t.Fatal(err)
	}
	return cursor, id
}

// read returns the same, or why there is none.
func (s *sse) read() (cursor, id string, err error) {
	var block []string
	for s.lines.Scan() {
		line := s.lines.Text()
		if line != "" {
			block = append(block, line)
			continue
		}
		if len(block) == 0 || len(block) == 1 && block[0] == ":" {
			block = nil
			continue
		}
		if len(block) != 3 || !strings.HasPrefix(block[0], "id: ") || block[1] != "event: upload" || !strings.HasPrefix(block[2], "data: ") {
			return "", "", fmt.Errorf("got the block %.1000q", block)
		}
		described, err := document()
		if err != nil {
			return "", "", err
		}
		var e map[string]any
		if err := json.Unmarshal([]byte(block[2][len("data: "):]), &e); err != nil {
			return "", "", err
		}
		if err := described.Components.Schemas["Event"].Value.VisitJSON(e); err != nil {
			return "", "", fmt.Errorf("the event is not as described: %w", err)
		}
		return block[0][len("id: "):], e["event_id"].(string), nil
	}
	return "", "", fmt.Errorf("the stream ended: %w", cmp.Or(s.lines.Err(), io.EOF))
}
