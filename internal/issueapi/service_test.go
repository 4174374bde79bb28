package issueapi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"upcall/internal/callbackspec"
	"upcall/internal/eventstore"
	"upcall/internal/issue"
	"upcall/internal/presign"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// A countingIssuer counts what was begun at OSS and what was taken back.
type countingIssuer struct {
	Issuer
	begun, aborted atomic.Int64
}

func (i *countingIssuer) IssueMultipart(ctx context.Context, r issue.MultipartRequest) (issue.Multipart, error) {
	m, err := i.Issuer.IssueMultipart(ctx, r)
	if err == nil {
		i.begun.Add(1)
	}
	return m, err
}

func (i *countingIssuer) AbortMultipart(ctx context.Context, m issue.Multipart) error {
	i.aborted.Add(1)
	return i.Issuer.AbortMultipart(ctx, m)
}

// A fakeLedger does what a test says.
type fakeLedger struct {
	noLedger
	issue func(ctx context.Context, upload eventstore.IssuedUpload) error
}

func (l fakeLedger) Issue(ctx context.Context, upload eventstore.IssuedUpload) error {
	return l.issue(ctx, upload)
}

func TestMultipart(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	for _, tt := range []struct {
		body  string
		parts int
		next  bool
	}{
		{`{"key":"films/a.mp4","size":1048577,"part_size":1048576,"vars":{"note":"x"}}`, 2, false},
		{`{"key":"films/b.mp4","size":1}`, 1, false},
		{`{"key":"films/c.mp4","size":209715200,"part_size":102400,"expires_in":"7d"}`, 2048, true},
	} {
		issued := s.call(t, http.MethodPost, "/v1/uploads/multipart", s.films, tt.body)
		if issued.status != http.StatusCreated || issued.text("status") != "issued" || len(issued.json["parts"].([]any)) != tt.parts || (issued.json["list_parts_next"] != nil) != tt.next {
			t.Fatalf("%d %.2000s", issued.status, issued.raw)
		}
		row, err := s.ledger.Get(t.Context(), uuid.MustParse(issued.text("upload_id")))
		if err != nil || row.OSSUploadID != issued.text("oss_upload_id") || row.OSSUploadID == "" || row.Object != issued.text("key") || row.APIKeyID != "app" ||
			float64(*row.Size) != issued.json["size"] {
			t.Errorf("row %+v, %v", row, err)
		}
		// The description holds the uploader's program, too.
		if _, err := issue.ReadManifest(strings.NewReader(issued.raw)); err != nil {
			t.Error(err)
		}
	}
}

// TestMultipartOSSRefuses: OSS knows no such bucket, though the policy does.
func TestMultipartOSSRefuses(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	got := s.call(t, http.MethodPost, "/v1/uploads/multipart", s.films, `{"bucket":"absent","key":"a","size":1}`)
	if got.status != http.StatusBadGateway || got.text("rule") != "oss" || !strings.Contains(got.raw, "NoSuchBucket") || s.rows(t) != 0 {
		t.Errorf("%d %s", got.status, got.raw)
	}
	if log := s.log.String(); !strings.Contains(log, "NoSuchBucket") {
		t.Errorf("the log does not say why:\n%s", log)
	}
}

// TestLedgerFails: without a row nobody gets a URL, and no upload stays open at OSS.
func TestLedgerFails(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		err  error
	}{
		{"unavailable", fmt.Errorf("commit: %w: connection refused to db.internal", eventstore.ErrUnavailable)},
		{"full", eventstore.ErrQueueFull},
		{"rejected", eventstore.ErrRejected},
		{"something else", errors.New("db.internal is on fire")},
		{"deadline", context.DeadlineExceeded},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			issuer := &countingIssuer{Issuer: newIssuer(t)}
			s := start(t, func(c *Config) {
				c.Issuer, c.Ledger = issuer, fakeLedger{issue: func(context.Context, eventstore.IssuedUpload) error { return tt.err }}
			})
			for _, path := range []string{"/v1/uploads", "/v1/uploads/multipart"} {
				got := s.call(t, http.MethodPost, path, s.photos, goodBody)
				if got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") != "1" || got.text("rule") != "available" {
					t.Errorf("%s: %d %s", path, got.status, got.raw)
				}
				if strings.Contains(got.raw, "signature") || strings.Contains(got.raw, "db.internal") || strings.Contains(got.raw, "upload_id") {
					t.Errorf("%s: the answer holds more than it may: %s", path, got.raw)
				}
			}
			if issuer.begun.Load() != 1 || issuer.aborted.Load() != 1 {
				t.Errorf("%d uploads were begun at OSS, and %d aborted", issuer.begun.Load(), issuer.aborted.Load())
			}
			if log := s.log.String(); !strings.Contains(log, tt.err.Error()) {
				t.Errorf("the log does not say why:\n%s", log)
			}
		})
	}
}

// TestAnswerWaitsForCommit: the URL is not out before the row is in.
func TestAnswerWaitsForCommit(t *testing.T) {
	t.Parallel()
	arrived, commit := make(chan struct{}), make(chan struct{})
	s := start(t, func(c *Config) {
		c.Ledger = fakeLedger{issue: func(context.Context, eventstore.IssuedUpload) error {
			close(arrived)
			<-commit
			return nil
		}}
	})
	answered := make(chan answer, 1)
	go func() { answered <- s.call(t, http.MethodPost, "/v1/uploads", s.photos, goodBody) }()
	<-arrived
	select {
	case got := <-answered:
		t.Errorf("answered before the commit: %d %s", got.status, got.raw)
	case <-time.After(50 * time.Millisecond):
	}
	// A stopping issuer waits for it, too.
	stopped := make(chan error, 1)
	go func() { stopped <- s.stop() }()
	close(commit)
	if got := <-answered; got.status != http.StatusCreated {
		t.Errorf("%d %s", got.status, got.raw)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// TestDatabaseAway: a real PostgreSQL whose tables are gone.
func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	issued := s.call(t, http.MethodPost, "/v1/uploads", s.photos, goodBody)
	if _, err := s.pool.Exec(t.Context(), "ALTER TABLE upcall.issued_uploads RENAME TO gone"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.pool.Exec(t.Context(), "ALTER VIEW upcall.upload_status RENAME TO gone_too"); err != nil {
		t.Fatal(err)
	}
	path := "/v1/uploads/" + issued.text("upload_id")
	for _, got := range []answer{
		s.call(t, http.MethodPost, "/v1/uploads", s.photos, goodBody), s.call(t, http.MethodGet, path, s.photos, ""), s.call(t, http.MethodDelete, path, s.photos, ""),
	} {
		if got.status != http.StatusServiceUnavailable || strings.Contains(got.raw, "issued_uploads") {
			t.Errorf("%d %s", got.status, got.raw)
		}
	}
}

// A cannedIssuer fails in one way.
type cannedIssuer struct{ err error }

func (i cannedIssuer) Issue(context.Context, issue.Request) (issue.Upload, error) {
	return issue.Upload{}, i.err
}
func (i cannedIssuer) IssueMultipart(context.Context, issue.MultipartRequest) (issue.Multipart, error) {
	return issue.Multipart{}, i.err
}
func (i cannedIssuer) AbortMultipart(context.Context, issue.Multipart) error { return nil }

// TestCredentialsEnd: that is the operator's business, and the caller is told nothing of it.
func TestCredentialsEnd(t *testing.T) {
	t.Parallel()
	err := &callbackspec.FieldError{Field: "credentials", Problem: "of ak-of-ours have expired", Mend: "renew them", Rule: presign.ErrCredentials}
	s := start(t, func(c *Config) { c.Issuer = cannedIssuer{err} })
	for _, path := range []string{"/v1/uploads", "/v1/uploads/multipart"} {
		got := s.call(t, http.MethodPost, path, s.photos, goodBody)
		if got.status != http.StatusServiceUnavailable || strings.Contains(got.raw, "ak-of-ours") {
			t.Errorf("%d %s", got.status, got.raw)
		}
	}
	if log := s.log.String(); !strings.Contains(log, "ak-of-ours") {
		t.Errorf("the log does not say why:\n%s", log)
	}
}

// panicking fails as nobody has foreseen.
type panicking struct{ cannedIssuer }

func (panicking) Issue(context.Context, issue.Request) (issue.Upload, error) { panic("a secret state") }

func TestPanic(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *Config) { c.Issuer = panicking{} })
	for range 2 { // the process lives
		got := s.call(t, http.MethodPost, "/v1/uploads", s.photos, goodBody)
		if got.status != http.StatusServiceUnavailable || strings.Contains(got.raw, "secret") || strings.Contains(got.raw, "goroutine") {
			t.Errorf("%d %s", got.status, got.raw)
		}
	}
	if log := s.log.String(); !strings.Contains(log, "a secret state") || !strings.Contains(log, "goroutine") {
		t.Errorf("the log does not show the panic:\n%s", log)
	}
}

// TestBodies are about how a body comes, whatever is in it.
func TestBodies(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	for _, tt := range []struct {
		name   string
		change func(*http.Request)
		status int
		rule   string
	}{
		{"no content type", func(r *http.Request) { r.Header.Del("Content-Type") }, 415, "media_type"},
		{"form", func(r *http.Request) { r.Header.Set("Content-Type", "application/x-www-form-urlencoded") }, 415, "media_type"},
		{"text", func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }, 415, "media_type"},
		{"no media type", func(r *http.Request) { r.Header.Set("Content-Type", "json;;") }, 415, "media_type"},
		{"JSON that only looks alike", func(r *http.Request) { r.Header.Set("Content-Type", "application/json-seq") }, 415, "media_type"},
		{"another charset", func(r *http.Request) { r.Header.Set("Content-Type", "application/json; charset=utf-16") }, 415, "media_type"},
		{"packed", func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") }, 415, "media_type"},
		{"too large", func(r *http.Request) { r.Body, r.ContentLength = readAll(strings.Repeat(" ", maxBody+1)), maxBody+1 }, 413, "body_size"},
		{"chunked and too large", func(r *http.Request) { r.Body, r.ContentLength = readAll(strings.Repeat(" ", maxBody+1)), -1 }, 413, "body_size"},
		{"chunked without end", func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(endless{}), -1 }, 413, "body_size"},
		{"empty", func(r *http.Request) { r.Body, r.ContentLength = http.NoBody, 0 }, 400, "json"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, path := range []string{"/v1/uploads", "/v1/uploads/multipart"} {
				r := s.request(t, http.MethodPost, path, s.photos, goodBody)
				tt.change(r)
				if got := s.do(t, r); got.status != tt.status || got.text("rule") != tt.rule {
					t.Errorf("%s: %d %s", path, got.status, got.raw)
				}
			}
		})
	}
	for _, contentType := range []string{"application/json; charset=utf-8", "Application/JSON", "application/json;charset=UTF-8"} {
		r := s.request(t, http.MethodPost, "/v1/uploads", s.photos, goodBody)
		r.Header.Set("Content-Type", contentType)
		r.Header.Set("Content-Encoding", "identity")
		if got := s.do(t, r); got.status != http.StatusCreated {
			t.Errorf("%s: %d %s", contentType, got.status, got.raw)
		}
	}
	if n := s.rows(t); n != 3 {
		t.Errorf("%d rows", n)
	}
}

func readAll(s string) io.ReadCloser { return io.NopCloser(strings.NewReader(s)) }

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// TestCutShort: a body that ends before its length says so.
func TestCutShort(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /v1/uploads HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", s.photos, len(goodBody)+1, goodBody)
	conn.(*net.TCPConn).CloseWrite()
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusBadRequest || s.rows(t) != 0 {
		t.Errorf("%s, %d rows", response.Status, s.rows(t))
	}
}

// TestPaths: what is not there is refused as the rest is.
func TestPaths(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	for _, tt := range []struct {
		method, path string
		status       int
		rule, allow  string
	}{
		{"GET", "/", 404, "path", ""},
		{"GET", "/v1", 404, "path", ""},
		{"POST", "/v1/uploads/", 404, "path", ""},
		{"POST", "/v2/uploads", 404, "path", ""},
		{"GET", "/v1/uploads/a/b", 404, "path", ""},
		{"GET", "/metrics", 404, "path", ""},
		{"GET", "/readyz", 404, "path", ""},
		{"GET", "/debug/pprof/", 404, "path", ""},
		{"GET", "/v1/uploads", 405, "method", "POST"},
		{"PUT", "/v1/uploads", 405, "method", "POST"},
		{"PATCH", "/v1/uploads/x", 405, "method", "GET, DELETE"},
		{"POST", "/openapi.yaml", 405, "method", "GET"},
	} {
		got := s.call(t, tt.method, tt.path, s.photos, "")
		if got.status != tt.status || got.text("rule") != tt.rule || got.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: %d %s", tt.method, tt.path, got.status, got.raw)
		}
		allowed, want := strings.Split(got.header.Get("Allow"), ", "), strings.Split(tt.allow, ", ")
		slices.Sort(allowed)
		slices.Sort(want)
		if diff := cmp.Diff(want, allowed); diff != "" {
			t.Errorf("%s %s: Allow (-want +got):\n%s", tt.method, tt.path, diff)
		}
	}
}

// TestDescription holds openapi.yaml against the routes.
func TestDescription(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	got := s.call(t, http.MethodGet, "/openapi.yaml", "", "")
	if got.status != http.StatusOK || got.raw != string(openAPIDocument) || got.header.Get("Content-Type") != "application/yaml" {
		t.Errorf("%d %v", got.status, got.header)
	}
	described := make(map[string]bool)
	for path, item := range documentOf(t).Paths.Map() {
		for method, operation := range item.Operations() {
			described[method+" "+path] = true
			if operation.OperationID == "" || operation.Summary == "" {
				t.Errorf("%s %s has no name or no summary", method, path)
			}
		}
	}
	server, err := New(Config{Issuer: cannedIssuer{}, Ledger: noLedger{}, Keys: fixedKeys{}, Policies: parsePolicies(t, policies),
		Ready: func(context.Context) error { return nil }, Metrics: NewMetrics(), Logger: discard})
	if err != nil {
		t.Fatal(err)
	}
	routed := make(map[string]bool)
	for _, route := range server.API().(*gin.Engine).Routes() {
		routed[route.Method+" "+strings.ReplaceAll(route.Path, ":id", "{upload_id}")] = true
	}
	if diff := cmp.Diff(routed, described); diff != "" {
		t.Errorf("routes and description (-routes +description):\n%s", diff)
	}
}

// TestDescribedProblems: every kind of problem and every rule is described.
func TestDescribedProblems(t *testing.T) {
	t.Parallel()
	schemas := documentOf(t).Components.Schemas
	types, rules := schemas["Problem"].Value.Properties["type"].Value.Enum, schemas["Rule"].Value.Enum
	if len(types) != len(kinds) {
		t.Errorf("%d types are described, and there are %d", len(types), len(kinds))
	}
	for kind, is := range kinds {
		if !slices.Contains(types, any("urn:upcall:problem:"+string(kind))) || is.rule != "" && !slices.Contains(rules, any(is.rule)) {
			t.Errorf("%s with the rule %q is not described", kind, is.rule)
		}
	}
}

// TestExamples: the examples in the description are such as the API takes.
func TestExamples(t *testing.T) {
	t.Parallel()
	for path, multipart := range map[string]bool{"/v1/uploads": false, "/v1/uploads/multipart": true} {
		media := documentOf(t).Paths.Value(path).Post.RequestBody.Value.Content["application/json"]
		text := marshal(t, media.Example)
		if _, err := decodeUpload(text, multipart); err != nil || len(text) < 50 {
			t.Errorf("%s: %v in %s", path, err, text)
		}
	}
}

func TestPage(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *Config) {
		c.Page = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "4")
			io.WriteString(w, "page")
		})
	})
	if got := s.call(t, http.MethodGet, "/", "", ""); got.status != http.StatusOK || got.raw != "page" {
		t.Errorf("%d %s", got.status, got.raw)
	}
	if got := s.call(t, http.MethodGet, "/v1/uploads", "", ""); got.status != http.StatusMethodNotAllowed {
		t.Errorf("the page hides the API: %d %s", got.status, got.raw)
	}
}

func TestAdmin(t *testing.T) {
	t.Parallel()
	var ready atomic.Pointer[error]
	s := start(t, func(c *Config) {
		c.Ready = func(context.Context) error {
			if err := ready.Load(); err != nil {
				return *err
			}
			return nil
		}
	})
	s.call(t, http.MethodPost, "/v1/uploads", s.photos, goodBody)
	s.call(t, http.MethodPost, "/v1/uploads", s.photos, "{}")
	s.call(t, http.MethodGet, "/some/path", s.photos, "")
	get := func(path string) (int, string) {
		response, err := http.Get(s.admin + path)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		return response.StatusCode, string(body)
	}
	if status, body := get("/livez"); status != 200 || body != "ok\n" {
		t.Errorf("livez: %d %s", status, body)
	}
	if status, body := get("/readyz"); status != 200 || body != "ok\n" {
		t.Errorf("readyz: %d %s", status, body)
	}
	ready.Store(new(errors.New("no schema")))
	if status, body := get("/readyz"); status != 503 || body != "not ready: no schema\n" {
		t.Errorf("readyz: %d %s", status, body)
	}
	_, metrics := get("/metrics")
	for _, want := range []string{
		`upcall_issuer_requests_total{outcome="ok",route="POST /v1/uploads"} 1`,
		`upcall_issuer_requests_total{outcome="policy",route="POST /v1/uploads"} 1`,
		`upcall_issuer_requests_total{outcome="not-found",route="none"} 1`,
		"upcall_issuer_batch_rows_count 1",
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	if status, _ := get("/v1/uploads"); status != 404 {
		t.Errorf("the API is on the admin listener: %d", status)
	}
}

// TestLog: one line a request, and no secret in any.
func TestLog(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	issued := s.call(t, http.MethodPost, "/v1/uploads", s.photos, goodBody)
	s.call(t, http.MethodPost, "/v1/uploads", s.photos, with("cat.jpg", "../a"))
	s.call(t, http.MethodGet, "/v1/uploads/"+issued.text("upload_id"), s.photos, "")
	s.call(t, http.MethodGet, "/v1/uploads/x", s.photos[:len(s.photos)-1]+"A", "")
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	log := s.log.String()
	var lines []string
	for line := range strings.Lines(log) {
		if strings.Contains(line, `"msg":"request"`) {
			lines = append(lines, line)
		}
	}
	if len(lines) != 4 {
		t.Fatalf("%d lines for 4 requests:\n%s", len(lines), log)
	}
	id := `"upload_id":"` + issued.text("upload_id") + `"`
	for i, want := range [][]string{
		{`"level":"INFO"`, `"route":"POST /v1/uploads"`, `"status":201`, `"outcome":"ok"`, `"api_key":"web"`, id, `"bucket":"demo"`, `"object_key":"photos/web/cat.jpg"`},
		{`"level":"WARN"`, `"status":403`, `"outcome":"policy"`, `"api_key":"web"`, `"rules":"key"`},
		{`"route":"GET /v1/uploads/:id"`, `"status":200`, id},
		{`"status":401`, `"outcome":"unauthenticated"`, `"rules":"api_key"`},
	} {
		for _, field := range want {
			if !strings.Contains(lines[i], field) {
				t.Errorf("line %d lacks %s: %s", i, field, lines[i])
			}
		}
	}
	for _, secret := range []string{s.photos[len("upk_web_"):], "x-oss-signature", "upcall_token"} {
		if strings.Contains(log, secret) {
			t.Errorf("the log holds a secret:\n%s", log)
		}
	}
	if strings.Contains(lines[3], `"api_key":`) {
		t.Errorf("the log names a key that was not proven: %s", lines[3])
	}
}

// TestManifestsAtOnce: no more than maxMultiparts are made, and who waits too long is told.
func TestManifestsAtOnce(t *testing.T) {
	t.Parallel()
	server, err := New(Config{Issuer: cannedIssuer{}, Ledger: noLedger{}, Keys: fixedKeys{}, Policies: parsePolicies(t, policies),
		Ready: func(context.Context) error { return nil }, Metrics: NewMetrics(), Logger: discard})
	if err != nil {
		t.Fatal(err)
	}
	for range maxMultiparts {
		server.multiparts <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := decodeUpload([]byte(`{"key":"a","size":1}`), true)
	if err != nil {
		t.Fatal(err)
	}
	_, err = server.multipart(ctx, &caller{id: "app", policy: "films"}, r, &logEvent{})
	if p := asProblem(err); p.kind != kindUnavailable || p.retryAfter == 0 {
		t.Errorf("%+v", p)
	}
}

func TestNewRejections(t *testing.T) {
	t.Parallel()
	good := Config{Issuer: cannedIssuer{}, Ledger: noLedger{}, Keys: fixedKeys{}, Policies: parsePolicies(t, policies),
		Ready: func(context.Context) error { return nil }, Metrics: NewMetrics(), Logger: discard}
	for name, change := range map[string]func(*Config){
		"Issuer": func(c *Config) { c.Issuer = nil }, "Ledger": func(c *Config) { c.Ledger = nil }, "Keys": func(c *Config) { c.Keys = nil },
		"Policies": func(c *Config) { c.Policies = nil }, "Ready": func(c *Config) { c.Ready = nil }, "Metrics": func(c *Config) { c.Metrics = nil },
		"Logger": func(c *Config) { c.Logger = nil }, "Rate": func(c *Config) { c.Rate = -1 }, "Burst": func(c *Config) { c.Burst = -1 },
	} {
		cfg := good
		change(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestBrokenListener: one listener without the other is of no use.
func TestBrokenListener(t *testing.T) {
	t.Parallel()
	server, err := New(Config{Issuer: cannedIssuer{}, Ledger: noLedger{}, Keys: fixedKeys{}, Policies: parsePolicies(t, policies),
		Ready: func(context.Context) error { return nil }, Metrics: NewMetrics(), Logger: discard})
	if err != nil {
		t.Fatal(err)
	}
	broken := listen(t)
	broken.Close()
	if err := server.Serve(t.Context(), listen(t), broken); !errors.Is(err, net.ErrClosed) {
		t.Errorf("error %v", err)
	}
}
