package issuer

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/testing/collector"
	"upcall/internal/testing/servetest"
	"upcall/internal/tracing"
)

// TestTraces: a call goes on with the trace of its application, and the ledger's batch is linked to it. Neither the key, nor
// what was issued, nor what the application wrote is in a span.
func TestTraces(t *testing.T) {
	t.Parallel()
	sink, cfg := collector.Start(t), config(t, dbtest.URL(t))
	env := map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": sink.URL}
	var err error
	if cfg.Traces, err = tracing.New(t.Context(), "issuer", env, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	key := addKey(t, dbtest.Open(t, cfg.DatabaseURL, eventstore.Open))
	running := servetest.Start(t, func(ctx context.Context, api, admin net.Listener) error { return Run(ctx, cfg, api, admin) })
	const parent, caller = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	do := func(method, path, body string) string {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, running.Public+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+key)
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Traceparent", "00-"+parent+"-"+caller+"-01")
		r.Header.Set("Tracestate", "hunter=2")
		r.Header.Set("Baggage", "hunter=2")
		_, text := servetest.Do(t, r)
		return text
	}
	var issued struct {
		UploadID string `json:"upload_id"`
		URL      string
	}
	text := do(http.MethodPost, "/v1/uploads?hunter=2", `{"key":"hunter","content_type":"image/png","size":1}`)
	if err := json.Unmarshal([]byte(text), &issued); err != nil || issued.UploadID == "" || issued.URL == "" {
		t.Fatalf("%v: %s", err, text)
	}
	do(http.MethodGet, "/v1/uploads/"+issued.UploadID, "")
	do(http.MethodPost, "/hunter", "")
	if err := running.Stop(); err != nil {
		t.Fatal(err)
	}
	ids, linked := make(map[string]string), ""
	for _, s := range sink.Spans() {
		if ids[s.Name] = s.ID; s.Name == "record batch" && len(s.Links) == 1 {
			linked = s.Links[0]
		}
		if strings.Contains(s.Name, "/v1/") && (s.Trace != parent || s.Parent != caller || s.Attributes["http.route"] == "") ||
			s.Service != "upcall-issuer" {
			t.Errorf("span %+v", s)
		}
	}
	if ids["POST /v1/uploads"] == "" || ids["GET /v1/uploads/:id"] == "" || linked != ids["POST /v1/uploads"] {
		t.Errorf("spans %v, linked to %s", ids, linked)
	}
	_, signature, _ := strings.Cut(issued.URL, "x-oss-signature=")
	signature, _, _ = strings.Cut(signature, "&")
	for _, secret := range []string{key, issued.UploadID, signature, "hunter", "image/png", "x-oss-"} {
		if secret == "" || strings.Contains(sink.Raw(), secret) {
			t.Errorf("%q was sent", secret)
		}
	}
}
