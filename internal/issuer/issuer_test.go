package issuer

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/apikey"
	"upcall/internal/callbackspec"
	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/oss"
	"upcall/internal/policy"
	"upcall/internal/testing/servetest"
	"upcall/internal/uploadtoken"
	"upcall/migrations"
)

const databasePage = "../../docs/database.md"

const policies = `policies:
  photos:
    buckets: [demo]
    key_prefixes: ["*"]
    content_types: ["*/*"]
    max_size: 1MiB
    max_expiry: 1h
    callback_urls: ["https://uploads.example.com/oss/callback"]
`

func config(t *testing.T, databaseURL string) Config {
	t.Helper()
	tokens, err := uploadtoken.ParseKeys("k1:0123456789abcdef0123456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	set, err := policy.Parse([]byte(policies), callbackspec.PublicHosts)
	if err != nil {
		t.Fatal(err)
	}
	return Config{
		DatabaseURL: databaseURL, Tokens: tokens, Policies: set, Logger: slog.New(slog.DiscardHandler),
		OSS: oss.Config{Region: "cn-hangzhou", AccessKeyID: "ak", AccessKeySecret: "sk"},
	}
}

// addKey adds the API key web and returns it.
func addKey(t *testing.T, pool *pgxpool.Pool) string {
	t.Helper()
	key, hash, err := apikey.New("web")
	if err != nil {
		t.Fatal(err)
	}
	added := eventstore.APIKey{ID: "web", Hash: hash[:], Policy: "photos", CreatedAt: time.Now()}
	if err := eventstore.NewAPIKeys(pool).Add(t.Context(), added); err != nil {
		t.Fatal(err)
	}
	return key
}

func ask(t *testing.T, method, url, key, body string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+key)
	request.Header.Set("Content-Type", "application/json")
	return servetest.Do(t, request)
}

// TestRun: with the rights that the documentation lists, an issuer issues an upload and
// records it. When it cannot, it is not ready.
func TestRun(t *testing.T) {
	t.Parallel()
	owner := dbtest.URL(t)
	cfg := config(t, dbtest.Role(t, owner, dbtest.Grants(t, databasePage, "upcall_issuer")...))
	cfg.Page = true
	pool := dbtest.Open(t, cfg.DatabaseURL, eventstore.Open)
	key := addKey(t, pool)
	running := servetest.Start(t, func(ctx context.Context, api, admin net.Listener) error { return Run(ctx, cfg, api, admin) })
	base, private := running.Public, running.Admin
	status, answer := ask(t, http.MethodPost, base+"/v1/uploads", key, `{"key":"a","content_type":"image/png","size":1}`)
	if status != http.StatusCreated {
		t.Errorf("an upload: %d %s", status, answer)
	}
	var issued struct {
		ID string `json:"upload_id"`
	}
	if err := json.Unmarshal([]byte(answer), &issued); err != nil {
		t.Error(err)
	}
	if status, answer := ask(t, http.MethodGet, base+"/v1/uploads/"+issued.ID, key, ""); status != http.StatusOK {
		t.Errorf("its status: %d %s", status, answer)
	}
	if status, answer := ask(t, http.MethodDelete, base+"/v1/uploads/"+issued.ID, key, ""); status >= 500 {
		t.Errorf("to revoke it: %d %s", status, answer)
	}
	if err := eventstore.NewAPIKeys(pool).Revoke(t.Context(), "web"); err != nil {
		t.Error(err)
	}
	var rows int
	if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM upcall.issued_uploads").Scan(&rows); err != nil || rows != 1 {
		t.Errorf("got %d rows (%v), want 1", rows, err)
	}
	for url, want := range map[string]string{
		base + "/":             "<!doctype html>",
		private + "/livez":     "ok\n",
		private + "/readyz":    "ok\n",
		private + "/metrics":   "upcall_issuer_batch_rows_count 1\n",
		base + "/openapi.yaml": "openapi: 3.1",
	} {
		if status, answer := ask(t, http.MethodGet, url, "", ""); status != http.StatusOK || !strings.Contains(answer, want) {
			t.Errorf("%s: %d %.200s", url, status, answer)
		}
	}
	if status, _ := ask(t, http.MethodGet, private+"/v1/uploads", key, ""); status != http.StatusNotFound {
		t.Errorf("the API is on the admin listener: %d", status)
	}
	dbtest.Execute(t, owner, "ALTER TABLE upcall.issued_uploads RENAME TO gone")
	if status, answer := ask(t, http.MethodGet, private+"/readyz", "", ""); status != http.StatusServiceUnavailable {
		t.Errorf("readyz while nothing can be issued: %d %s", status, answer)
	}
	if err := running.Stop(); err != nil {
		t.Error(err)
	}
}

func TestRunRefuses(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t)
	nobody := dbtest.Role(t, url)
	for name, tt := range map[string]struct {
		url  string
		want error
	}{
		"no rights":        {nobody, eventstore.ErrMistake},
		"wrong password":   {strings.Replace(nobody, ":secret@", ":hunter2@", 1), eventstore.ErrMistake},
		"no such database": {strings.Replace(url, "/upcall_test_", "/no_", 1), eventstore.ErrMistake},
		"no schema":        {dbtest.Empty(t), migrations.ErrTooOld},
		"no URL":           {"hunter2", migrations.ErrURL},
	} {
		if err := Run(t.Context(), config(t, tt.url), servetest.Listen(t), servetest.Listen(t)); !errors.Is(err, tt.want) {
			t.Errorf("%s: error %v, want %v", name, err, tt.want)
		}
	}
}

func TestPageOffByDefault(t *testing.T) {
	t.Parallel()
	if handler, err := (Config{}).page(t.Context(), nil); handler != nil || err != nil {
		t.Errorf("got %v, %v; want no page", handler, err)
	}
}
