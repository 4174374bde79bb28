package e2e

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"upcall/internal/admission"
	"upcall/internal/dbtest"
	"upcall/internal/httpserver"
	"upcall/internal/issuer"
	"upcall/internal/receiver"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/proxytest"
	"upcall/internal/testing/servetest"
	"upcall/internal/testing/toolchain"
	"upcall/internal/uploadtoken"
)

// TestProxySamples runs a receiver and an issuer behind the samples of deploy/proxy. What OSS signed must
// arrive byte for byte: escapes in the path, and a query.
func TestProxySamples(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"nginx", "caddy"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			toolchain.Need(t, name)
			tokens, err := uploadtoken.ParseKeys("k1:0123456789abcdef0123456789abcdef")
			if err != nil {
				t.Fatal(err)
			}
			database, keyURL := dbtest.URL(t), ossfake.KeyURL(t)
			proxies := httpserver.Proxies{netip.MustParsePrefix("127.0.0.1/32")}
			received := servetest.Start(t, func(ctx context.Context, public, admin net.Listener) error {
				return receiver.Run(ctx, receiver.Config{
					DatabaseURL: database, TrustKeyURLs: []string{keyURL}, Proxies: proxies, Logger: slog.New(slog.DiscardHandler),
					Admission: admission.Config{TokenPolicy: admission.TokenOff, CallbackPaths: []string{"/oss/callback", "/tenants/*"}},
				}, public, admin)
			})
			issues := startIssuer(t, issuer.Config{DatabaseURL: database, Tokens: tokens, Page: true}, "http://127.0.0.1:9", `
policies:
  people: {buckets: [demo], key_prefixes: ["inbox/"], content_types: ["*/*"], max_size: 1MiB, max_expiry: 1h,
    callback_urls: ["http://127.0.0.1:9/x"]}
`)
			front := proxytest.Start(t, name, proxytest.Upstreams{Callbacks: received.Public, API: received.Admin, Uploads: issues})

			for _, target := range []string{"/oss/callback", "/tenants/a%2Fb%20c//d?of=7%2F8&x=a+b%2B"} {
				r, err := ossfake.Callback(t.Context(), front.Callbacks, target, "application/x-www-form-urlencoded",
					"bucket=demo&object=a.txt&size=1&etag=E&mimeType=text%2Fplain&reqId="+strings.ReplaceAll(target[1:4], "/", ""), keyURL)
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("X-Forwarded-For", "203.0.113.9") // what a stranger says counts for nothing
				if status, body := servetest.Do(t, r); status != http.StatusOK || !strings.Contains(body, `"durable":"postgres"`) {
					t.Errorf("%s: %d %s", target, status, body)
				}
			}
			if rows := query[struct{ ID string }](t, database, "SELECT id::text FROM upcall.upload_events"); len(rows) != 2 {
				t.Errorf("%d rows", len(rows))
			}
			for url, want := range map[string]int{
				front.API + "/openapi.yaml": http.StatusOK, front.API + "/v1/events": http.StatusUnauthorized,
				front.Callbacks + "/metrics": http.StatusNotFound,
				front.Uploads + "/":          http.StatusOK, front.Uploads + "/openapi.yaml": http.StatusOK,
				front.Uploads + "/v1/policy": http.StatusUnauthorized,
			} {
				if status, body := servetest.Get(t, url); status != want {
					t.Errorf("%s: %d %.100s", url, status, body)
				}
			}
			for _, path := range []string{"/metrics", "/console/", "/v1/../metrics", "/v1/%2e%2e/metrics"} {
				if status, body := servetest.Get(t, front.API+path); status == http.StatusOK && body != "" {
					t.Errorf("the proxy shows %s: %.100s", path, body)
				}
			}
			issueOver(t, front.Uploads, addKey(t, database, "web", "people"))
		})
	}
}

// issueOver has an upload issued over HTTP.
func issueOver(t *testing.T, base, key string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/v1/uploads",
		strings.NewReader(`{"key":"inbox/a.txt","content_type":"text/plain","size":5}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = http.Header{"Authorization": {"Bearer " + key}, "Content-Type": {"application/json"}}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if text, err := io.ReadAll(response.Body); err != nil || response.StatusCode != http.StatusCreated {
		t.Errorf("issue: %d %s, %v", response.StatusCode, text, err)
	}
}
