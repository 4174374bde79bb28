package issueapi

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/apikey"
	"upcall/internal/callbackspec"
	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/httpserver"
	"upcall/internal/issue"
	"upcall/internal/oss"
	"upcall/internal/policy"
	"upcall/internal/testing/logtest"
	"upcall/internal/testing/openapitest"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/servetest"
	"upcall/internal/uploadtoken"
)

// policies are the policies of all tests.
const policies = `policies:
  photos:
    buckets: [demo]
    key_prefixes: ["photos/${apikey.id}/"]
    key_templates: ["made/${apikey.id}/${date}/${uuid}-${filename}"]
    content_types: [image/jpeg, image/png]
    max_size: 20MiB
    max_expiry: 1h
    callback_urls: ["http://127.0.0.1:1/oss/callback"]
    required_vars: [uid]
    allowed_vars: [album]
  films:
    buckets: [demo, absent]
    key_prefixes: ["*"]
    content_types: ["*/*"]
    max_size: 48TiB
    max_expiry: 7d
    callback_urls: ["http://127.0.0.1:1/oss/callback"]
    allowed_vars: [note]
`

// A service is the API on a real database, an emulator of OSS and real listeners.
type service struct {
	*servetest.Service
	pool   *pgxpool.Pool
	ledger ledger
	keys   *eventstore.APIKeys
	log    *logtest.Buffer
	photos string // a key with the policy photos and the id web
	films  string // a key with the policy films and the id app
}

// A ledger joins both sides of the ledger: writing it and reading it.
type ledger struct {
	*eventstore.Ledger
	*eventstore.Uploads
}

// forged returns key with the last character but one of its secret changed, which leaves it
// well formed. The last one does not do, because two of its bits must be zero.
func forged(key string) string {
	at := len(key) - 2
	other := "A"
	if key[at] == 'A' {
		other = "B"
	}
	return key[:at] + other + key[at+1:]
}

// start starts a service for the test. change may be nil.
func start(t testing.TB, change func(*Config)) *service {
	t.Helper()
	pool := dbtest.Pool(t, eventstore.Open)
	if err := eventstore.EnsurePartitions(t.Context(), pool, time.Now()); err != nil {
		t.Fatal(err)
	}
	metrics, registry := NewMetrics(), httpserver.NewRegistry()
	batches := eventstore.NewBatches("upcall_issuer", "Uploads")
	registry.MustRegister(append(metrics.Collectors(), batches.Collectors()...)...)
	rows, err := eventstore.NewLedger(eventstore.Config{Pool: dbtest.Beside(t, pool, eventstore.OpenRecorder), OnBatch: batches.Observe})
	if err != nil {
		t.Fatal(err)
	}
	logger, log := logtest.New()
	s := &service{pool: pool, ledger: ledger{rows, eventstore.NewUploads(pool)}, keys: eventstore.NewAPIKeys(pool), log: log}
	s.photos, s.films = s.addKey(t, "web", "photos"), s.addKey(t, "app", "films")
	cfg := Config{
		Issuer: newIssuer(t, s.ledger, nil), CallbackHosts: callbackspec.AnyHost, Ledger: s.ledger, Keys: s.keys,
		Repeats:  eventstore.NewRepeatables(pool),
		Policies: parsePolicies(t, policies), Metrics: metrics, Rate: 1e6, Burst: 1e6, Logger: logger,
	}
	if change != nil {
		change(&cfg)
	}
	server, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Service = servetest.Start(t, func(ctx context.Context, api, admin net.Listener) error {
		defer rows.Close()
		return server.Serve(ctx, api, httpserver.Site{Server: httpserver.New(httpserver.Admin(httpserver.Plain(pool.Ping), registry), discard),
			Listener: admin})
	})
	return s
}

func parsePolicies(t testing.TB, file string) *policy.Set {
	t.Helper()
	set, err := policy.Parse([]byte(file), callbackspec.AnyHost)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// multiparts counts the multipart uploads that were begun at OSS and those that were
// aborted.
type multiparts struct{ begun, aborted atomic.Int64 }

func (m *multiparts) count(r *http.Request) {
	switch query := r.URL.Query(); {
	case r.Method == http.MethodPost && query.Has("uploads"):
		m.begun.Add(1)
	case r.Method == http.MethodDelete && query.Has("uploadId"):
		m.aborted.Add(1)
	}
}

// newIssuer returns an issuer with a new emulator. counts may be nil.
func newIssuer(t testing.TB, ledger issue.Ledger, counts *multiparts) *issue.Issuer {
	t.Helper()
	emulator := ossfake.NewEmulator(t)
	endpoint := ossfake.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if counts != nil {
			counts.count(r)
		}
		emulator.ServeHTTP(w, r)
	}))
	client, err := oss.New(oss.Config{Region: ossfake.Region, Endpoint: endpoint,
		AccessKeyID: ossfake.AccessKeyID, AccessKeySecret: ossfake.AccessKeySecret})
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := uploadtoken.ParseKeys("k1:0123456789abcdef0123456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := issue.New(issue.Config{OSS: client, Tokens: tokens, Ledger: ledger})
	if err != nil {
		t.Fatal(err)
	}
	return issuer
}

func (s *service) addKey(t testing.TB, id, policy string) string {
	t.Helper()
	text, hash, err := apikey.New(id)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.keys.Add(t.Context(), eventstore.APIKey{ID: id, Hash: hash[:], Policy: policy, CreatedAt: time.Now()}); err != nil {
		t.Fatal(err)
	}
	return text
}

// rows returns how many uploads were issued.
func (s *service) rows(t testing.TB) int {
	t.Helper()
	var n int
	if err := s.pool.QueryRow(t.Context(), "SELECT count(*) FROM upcall.issued_uploads").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// An answer is a response, raw and parsed.
type answer struct {
	status int
	header http.Header
	raw    string
	json   map[string]any
}

func (a answer) text(name string) string {
	text, _ := a.json[name].(string)
	return text
}

// A brokenRule is one entry of a problem's errors.
type brokenRule struct{ Rule, Field string }

func (a answer) broken(t testing.TB) []brokenRule {
	t.Helper()
	var p struct{ Errors []brokenRule }
	if err := json.Unmarshal([]byte(a.raw), &p); err != nil {
		t.Fatal(err)
	}
	return p.Errors
}

// call sends a request and reads the answer, which must be as described.
func (s *service) call(t testing.TB, method, path, key, body string) answer {
	t.Helper()
	return s.do(t, s.request(t, method, path, key, body))
}

func (s *service) request(t testing.TB, method, path, key, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.Public+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		r.Header.Set("Authorization", "Bearer "+key)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	return r
}

func (s *service) do(t testing.TB, r *http.Request) answer {
	t.Helper()
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	documentOf(t).CheckAnswer(t, r, response, body)
	a := answer{status: response.StatusCode, header: response.Header, raw: string(body)}
	if strings.HasSuffix(response.Header.Get("Content-Type"), "json") {
		if err := json.Unmarshal(body, &a.json); err != nil {
			t.Fatalf("the answer is not JSON: %v: %s", err, body)
		}
	}
	return a
}

// document reads and validates openapi.yaml once.
var document = sync.OnceValues(func() (*openapitest.Description, error) { return openapitest.Read(openAPIDocument) })

func documentOf(t testing.TB) *openapitest.Description {
	t.Helper()
	d, err := document()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

var discard = slog.New(slog.DiscardHandler)
