package receiver

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"upcall/internal/admission"
	"upcall/internal/callbackspec"
	"upcall/internal/dbtest"
	"upcall/internal/testing/collector"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/servetest"
	"upcall/internal/testing/wait"
	"upcall/internal/tracing"
)

func traced(t *testing.T, endpoint string) *tracing.Traces {
	t.Helper()
	env := map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
	traces, err := tracing.New(t.Context(), "receiver", env, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return traces
}

// TestTraces: a receiver that stops has sent a span for each callback and for each batch, with the batch's statements,
// none of which holds anything that only sender and receiver may know. A traceparent of a stranger changes nothing.
func TestTraces(t *testing.T) {
	t.Parallel()
	sink, keyURL := collector.Start(t), ossfake.KeyURL(t)
	cfg := Config{DatabaseURL: dbtest.URL(t), TrustKeyURLs: []string{keyURL}, Traces: traced(t, sink.URL),
		Admission: admission.Config{CallbackPaths: []string{"/oss/callback", "/hunter/:session"}}}
	receiver := start(t, cfg)
	const foreign = "0af7651916cd43dd8448eb211c80319c"
	send := func(target, body string, change func(http.Header)) int {
		t.Helper()
		r, err := ossfake.Callback(t.Context(), receiver.Public, target, string(callbackspec.Form), body, keyURL)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Traceparent", "00-"+foreign+"-b7ad6b7169203331-01")
		r.Header.Set("Tracestate", "hunter=2")
		r.Header.Set("Baggage", "hunter=2")
		r.Header.Set("X-Forwarded-For", "198.51.100.77")
		r.Header.Set("User-Agent", "hunter")
		change(r.Header)
		status, _ := servetest.Do(t, r)
		return status
	}
	none := func(http.Header) {}
	body := "bucket=demo&object=hunter/a.jpg&size=1&reqId=5C3D9175B6FC201293AD0001&clientIp=203.0.113.99&uid=hunter&token=hunter"
	wait.Until(t, "a callback is recorded", func() bool { return send("/oss/callback?signature=hunter", body, none) == http.StatusOK })
	if status := send("/hunter/hunter-session", body+"&n=2", none); status != http.StatusOK {
		t.Errorf("a path with a parameter: %d", status)
	}
	if status := send("/oss/callback", body, func(h http.Header) { h.Set("Authorization", "hunter") }); status != http.StatusForbidden {
		t.Errorf("a forged callback: %d", status)
	}
	status, _ := servetest.Get(t, receiver.Public+"/hunter.php?hunter=2")
	if status != http.StatusNotFound {
		t.Errorf("a scanner: %d", status)
	}
	if err := receiver.Stop(); err != nil {
		t.Fatal(err)
	}

	spans := sink.Spans()
	names := make(map[string][]collector.Span)
	for _, s := range spans {
		names[s.Name] = append(names[s.Name], s)
		if s.Service != "upcall-receiver" || s.Trace == foreign || s.HasEvents || s.HasMessage {
			t.Errorf("span %+v", s)
		}
	}
	if len(names["callback"]) != 1 || len(names["POST /oss/callback"]) < 2 || len(names["record batch"]) < 2 {
		t.Fatalf("sent %+v", spans)
	}
	codes := make(map[string]bool)
	for _, s := range slices.Concat(names["callback"], names["POST /oss/callback"]) {
		codes[s.Attributes["http.response.status_code"]] = true
		if s.Parent != "" {
			t.Errorf("a callback is part of something: %+v", s)
		}
	}
	if !codes["200"] || !codes["403"] {
		t.Errorf("status codes %v", codes)
	}
	checkBatches(t, spans, names)
	raw := sink.Raw()
	for _, secret := range []string{"hunter/a", "hunter-", "=hunter", "hunter.php", "198.51.100.77", "203.0.113.99",
		"5C3D9175B6FC201293AD0001",
		keyURL, "postgres://", "unnest"} {
		if strings.Contains(raw, secret) {
			t.Errorf("%q was sent", secret)
		}
	}
	if n := strings.Count(raw, "hunter"); n > 0 {
		t.Errorf("%d of the sender's words were sent", n)
	}
}

// checkBatches holds that each batch is linked to a callback and has the statement that commits it.
func checkBatches(t *testing.T, spans []collector.Span, names map[string][]collector.Span) {
	t.Helper()
	linked, statements := 0, 0
	for _, batch := range names["record batch"] {
		linked += len(batch.Links)
		for _, s := range spans {
			if s.Parent == batch.ID && s.Trace == batch.Trace && s.Attributes["db.system.name"] == "postgresql" {
				statements++
			}
		}
	}
	if linked < 2 || statements < len(names["record batch"]) {
		t.Errorf("%d links and %d statements in %+v", linked, statements, spans)
	}
}

// TestTracesHang: a collector that takes everything and answers nothing delays neither callbacks nor the end.
func TestTracesHang(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	hanging := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer hanging.Close()
	defer close(release)
	keyURL := ossfake.KeyURL(t)
	receiver := start(t, Config{DatabaseURL: dbtest.URL(t), TrustKeyURLs: []string{keyURL}, Traces: traced(t, hanging.URL)})
	for i := range 20 {
		got := call(http.DefaultClient, receiver.Public, keyURL, fmt.Sprintf("bucket=demo&object=a&reqId=%d", i))
		if got.code != http.StatusOK && !got.late() {
			t.Errorf("answered %d, %v", got.code, got.err)
		}
	}
	began := time.Now()
	if err := receiver.Stop(); err != nil || time.Since(began) > 4*time.Second {
		t.Errorf("stopped after %v: %v", time.Since(began), err)
	}
}
