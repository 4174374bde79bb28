package issueapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/apikey"
	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/fault"
	"upcall/internal/issue"
	"upcall/internal/manifest"
	"upcall/internal/oss"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// A fakeLedger calls a function of the test.
type fakeLedger func() error

func (l fakeLedger) Issue(context.Context, eventstore.IssuedUpload) error { return l() }

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
		if issued.status != http.StatusCreated || issued.text("status") != "issued" || len(issued.json["parts"].([]any)) != tt.parts ||
			(issued.json["list_parts_next"] != nil) != tt.next {
			t.Fatalf("%d %.2000s", issued.status, issued.raw)
		}
		row, err := s.ledger.Get(t.Context(), uuid.MustParse(issued.text("upload_id")))
		if err != nil || row.OSSUploadID != issued.text("oss_upload_id") || row.OSSUploadID == "" || row.Object != issued.text("key") ||
			row.APIKeyID != "app" ||
			float64(*row.Size) != issued.json["size"] {
			t.Errorf("row %+v, %v", row, err)
		}
		// The answer is a manifest for the uploader.
		if _, err := manifest.Read(strings.NewReader(issued.raw)); err != nil {
			t.Error(err)
		}
	}
}

// TestMultipartOSSRefuses uses a bucket that the policy allows but OSS does not have.
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

// TestLedgerFails checks that without a row there is no URL, and that no upload stays open at
// OSS.
func TestLedgerFails(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		err  error
	}{
		{"unavailable", fmt.Errorf("commit: %w: connection refused to db.internal", event.ErrUnavailable)},
		{"full", event.ErrQueueFull},
		{"rejected", event.ErrUnstorable},
		{"something else", errors.New("db.internal is on fire")},
		{"deadline", context.DeadlineExceeded},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var counts multiparts
			issuer := newIssuer(t, fakeLedger(func() error { return tt.err }), &counts)
			s := start(t, func(c *Config) { c.Issuer = issuer })
			for _, path := range []string{"/v1/uploads", "/v1/uploads/multipart"} {
				got := s.call(t, http.MethodPost, path, s.photos, goodBody)
				if got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") != "1" || got.text("rule") != "available" {
					t.Errorf("%s: %d %s", path, got.status, got.raw)
				}
				if strings.Contains(got.raw, "signature") || strings.Contains(got.raw, "db.internal") ||
					strings.Contains(got.raw, "upload_id") {
					t.Errorf("%s: the answer reveals too much: %s", path, got.raw)
				}
			}
			if counts.begun.Load() != 1 || counts.aborted.Load() != 1 {
				t.Errorf("%d uploads were begun at OSS, and %d aborted", counts.begun.Load(), counts.aborted.Load())
			}
			if log := s.log.String(); strings.Count(log, tt.err.Error()) != 2 || strings.Count(log, `"upload_id":"`) != 2 {
				t.Errorf("the log does not say of which upload, or why:\n%s", log)
			}
		})
	}
}

// TestAnswerWaitsForCommit checks that the URL is not returned before the row is committed.
func TestAnswerWaitsForCommit(t *testing.T) {
	t.Parallel()
	arrived, commit := make(chan struct{}), make(chan struct{})
	s := start(t, func(c *Config) {
		c.Issuer = newIssuer(t, fakeLedger(func() error {
			close(arrived)
			<-commit
			return nil
		}), nil)
	})
	answered := make(chan answer, 1)
	go func() { answered <- s.call(t, http.MethodPost, "/v1/uploads", s.photos, goodBody) }()
	<-arrived
	select {
	case got := <-answered:
		t.Errorf("answered before the commit: %d %s", got.status, got.raw)
	case <-time.After(50 * time.Millisecond):
	}
	// A stopping issuer waits for the commit, too.
	stopped := make(chan error, 1)
	go func() { stopped <- s.Stop() }()
	close(commit)
	if got := <-answered; got.status != http.StatusCreated {
		t.Errorf("%d %s", got.status, got.raw)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// TestDatabaseAway uses a PostgreSQL without the issuer's tables.
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
		s.call(t, http.MethodPost, "/v1/uploads", s.photos, goodBody), s.call(t, http.MethodGet, path, s.photos, ""),
		s.call(t, http.MethodDelete, path, s.photos, ""),
	} {
		if got.status != http.StatusServiceUnavailable || strings.Contains(got.raw, "issued_uploads") {
			t.Errorf("%d %s", got.status, got.raw)
		}
	}
}

// A cannedIssuer returns err.
type cannedIssuer struct{ err error }

func (i cannedIssuer) Issue(context.Context, issue.Request) (manifest.Upload, oss.ExpiryCause, error) {
	return manifest.Upload{}, 0, i.err
}
func (i cannedIssuer) IssueForm(context.Context, issue.FormRequest) (manifest.Form, oss.ExpiryCause, error) {
	return manifest.Form{}, 0, i.err
}
func (i cannedIssuer) IssueMultipart(context.Context, issue.MultipartRequest) (manifest.Multipart, oss.ExpiryCause, error) {
	return manifest.Multipart{}, 0, i.err
}

// TestCredentialsEnd checks that the end of the credentials is logged for the operator, and
// that the caller learns nothing about it.
func TestCredentialsEnd(t *testing.T) {
	t.Parallel()
	err := fault.New(oss.ErrCredentials, "credentials", "renew them", "of ak-of-ours have expired")
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

func (panicking) Issue(context.Context, issue.Request) (manifest.Upload, oss.ExpiryCause, error) {
	panic("a secret state")
}

// TestManifestsAtOnce checks that at most maxMultiparts manifests are made at once, and that
// a request whose time is over while it waits gets 503.
func TestManifestsAtOnce(t *testing.T) {
	t.Parallel()
	text, hash, err := apikey.New("app")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	keys := endingKeys{fixedKeys{{ID: "app", Policy: "films", Hash: hash[:]}}, cancel}
	server, err := New(Config{Issuer: cannedIssuer{}, Ledger: noLedger{}, Repeats: noRepeats{}, Keys: keys, Policies: parsePolicies(t, policies),
		Metrics: NewMetrics(), Logger: discard})
	if err != nil {
		t.Fatal(err)
	}
	for range maxMultiparts {
		server.multiparts <- struct{}{}
	}
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/v1/uploads/multipart", strings.NewReader(`{"key":"a","size":1}`))
	r.Header = header(text)
	r.Header.Set("Content-Type", "application/json")
	got := httptest.NewRecorder()
	server.API().ServeHTTP(got, r)
	if got.Code != http.StatusServiceUnavailable || got.Header().Get("Retry-After") == "" ||
		!strings.Contains(got.Body.String(), "too many multipart uploads are being issued") {
		t.Errorf("%d %v %s", got.Code, got.Header(), got.Body)
	}
}

// endingKeys end a request once its key is known.
type endingKeys struct {
	fixedKeys
	end context.CancelFunc
}

func (k endingKeys) List(ctx context.Context) ([]eventstore.APIKey, error) {
	k.end()
	return k.fixedKeys.List(ctx)
}

func TestNewRejections(t *testing.T) {
	t.Parallel()
	good := Config{Issuer: cannedIssuer{}, Ledger: noLedger{}, Repeats: noRepeats{}, Keys: fixedKeys{}, Policies: parsePolicies(t, policies),
		Metrics: NewMetrics(), Logger: discard}
	for name, change := range map[string]func(*Config){
		"Issuer": func(c *Config) { c.Issuer = nil }, "Ledger": func(c *Config) { c.Ledger = nil },
		"Keys":     func(c *Config) { c.Keys = nil },
		"Policies": func(c *Config) { c.Policies = nil }, "Metrics": func(c *Config) { c.Metrics = nil },
		"Logger": func(c *Config) { c.Logger = nil }, "Rate": func(c *Config) { c.Rate = -1 }, "Burst": func(c *Config) { c.Burst = -1 },
	} {
		cfg := good
		change(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLargeFileIsToldOfParts checks that a file over the limit of one PUT is sent to the call
// that takes it.
func TestLargeFileIsToldOfParts(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *Config) { c.Policies = parsePolicies(t, strings.ReplaceAll(policies, "20MiB", "20GiB")) })
	got := s.call(t, http.MethodPost, "/v1/uploads", s.photos,
		`{"key":"photos/web/a.jpg","content_type":"image/jpeg","size":6000000000,"vars":{"uid":"42"}}`)
	if got.status != http.StatusUnprocessableEntity || !strings.Contains(got.text("detail"), "POST /v1/uploads/multipart") {
		t.Errorf("%d: %s", got.status, got.raw)
	}
}

// noRepeats keeps nothing.
type noRepeats struct{ Repeats }
