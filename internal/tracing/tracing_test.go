package tracing

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"upcall/internal/testing/collector"
	"upcall/internal/testing/logtest"
	"upcall/internal/testing/wait"
)

func TestEndpoint(t *testing.T) {
	t.Parallel()
	const general, special, exporter = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER"
	for _, tt := range []struct {
		name      string
		env       map[string]string
		want, err string
	}{
		{"nothing", nil, "", ""},
		{"other variables", map[string]string{"OTEL_SERVICE_NAME": "x", "OTEL_METRICS_EXPORTER": "otlp"}, "", ""},
		{"endpoint", map[string]string{general: "http://c:4318"}, "http://c:4318/v1/traces", ""},
		{"endpoint with a path", map[string]string{general: "https://c/otlp/"}, "https://c/otlp/v1/traces", ""},
		{"endpoint of traces", map[string]string{general: "http://c:4318", special: "http://d/x"}, "http://d/x", ""},
		{"exporter alone", map[string]string{exporter: "otlp"}, "http://localhost:4318/v1/traces", ""},
		{"none", map[string]string{general: "http://c:4318", exporter: "none"}, "", ""},
		{"disabled", map[string]string{general: "http://c:4318", "OTEL_SDK_DISABLED": "true"}, "", ""},
		{"disabled, with mistakes", map[string]string{general: "nonsense", "OTEL_SDK_DISABLED": " True "}, "", ""},
		{"not disabled", map[string]string{exporter: "otlp", "OTEL_SDK_DISABLED": "false"}, localCollector, ""},
		{"protocol", map[string]string{exporter: "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, localCollector, ""},
		{"protocol of traces", map[string]string{exporter: "otlp", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
			"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, localCollector, ""},
		{"grpc", map[string]string{exporter: "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "", `OTEL_EXPORTER_OTLP_PROTOCOL: "grpc"`},
		{"grpc for traces", map[string]string{general: "http://c", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}, "",
			"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: "},
		{"exporter", map[string]string{exporter: "console"}, "", `OTEL_TRACES_EXPORTER: there is no exporter "console"`},
		{"no scheme", map[string]string{general: "hunter2:4318"}, "", general + ": it is not a URL"},
		{"scheme", map[string]string{special: "grpc://hunter2"}, "", special + ": it is not a URL"},
		{"no host", map[string]string{special: "http:///hunter2"}, "", special + ": it is not a URL"},
		{"no host but a port", map[string]string{special: "http://:4318"}, "", special + ": it is not a URL"},
		{"user", map[string]string{general: "http://u:hunter2@c:4318"}, "", general + ": it has a user, a query or a fragment"},
		{"query", map[string]string{special: "https://c/v1/traces?k=hunter2"}, "", special + ": it has a user, a query or a fragment"},
		{"empty query", map[string]string{special: "https://c/v1/traces?"}, "", "give credentials in OTEL_EXPORTER_OTLP_HEADERS"},
		{"fragment", map[string]string{general: "http://c#hunter2"}, "", general + ": it has a user, a query or a fragment"},
		{"the one that does not count", map[string]string{general: "http://u:hunter2@c:x", special: "http://c"}, "",
			general + ": it is not"},
		{"all wrong", map[string]string{special: "x", exporter: "y", "OTEL_EXPORTER_OTLP_PROTOCOL": "z"}, "",
			"OTEL_EXPORTER_OTLP_PROTOCOL: "},
	} {
		got, err := endpoint(tt.env)
		if tt.err == "" && (err != nil || got != tt.want) {
			t.Errorf("%s: %q, %v, want %q", tt.name, got, err, tt.want)
		}
		if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.err)
		}
	}
}

// TestOff holds that without the variables there is nothing to put between a request and its handler, or a statement and
// its connection.
func TestOff(t *testing.T) {
	t.Parallel()
	for name, env := range map[string]map[string]string{"unset": nil,
		"none": {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}} {
		traces, err := New(t.Context(), "receiver", env, slog.New(slog.DiscardHandler))
		if traces != nil || err != nil {
			t.Fatalf("%s: %v, %v", name, traces, err)
		}
		if traces.Callbacks() != nil || traces.Calls() != nil || traces.Queries() != nil || traces.Batch() != nil {
			t.Errorf("%s: there is something", name)
		}
		traces.Flush()
		traces.Close()
	}
}

// TestReduce: no tracestate leaves the process, whatever has one.
func TestReduce(t *testing.T) {
	t.Parallel()
	state, err := trace.ParseTraceState("hunter=2")
	if err != nil {
		t.Fatal(err)
	}
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled,
		TraceState: state})
	got := reduce(tracetest.SpanStub{SpanContext: span, Parent: span, Links: []sdktrace.Link{{SpanContext: span,
		Attributes: []attribute.KeyValue{attribute.String("hunter", "2")}}}}.Snapshot())
	if len(got.Links()) != 1 || len(got.Links()[0].Attributes) != 0 {
		t.Fatalf("links %v", got.Links())
	}
	for name, c := range map[string]trace.SpanContext{"span": got.SpanContext(), "parent": got.Parent(),
		"link": got.Links()[0].SpanContext} {
		if c.TraceState().Len() != 0 || c.TraceID() != span.TraceID() || c.SpanID() != span.SpanID() || !c.IsSampled() {
			t.Errorf("%s: %v", name, c)
		}
	}
}

// sending returns traces, and what they are sent to.
func sending(t *testing.T) (*collector.Collector, *Traces) {
	t.Helper()
	sink := collector.Start(t)
	traces, err := New(t.Context(), "receiver", map[string]string{generalEndpoint: sink.URL}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return sink, traces
}

// TestStrict: whatever a library puts into a span, only what is known to hold no secret is sent.
func TestStrict(t *testing.T) {
	t.Parallel()
	sink, traces := sending(t)
	_, span := traces.tracer.Start(t.Context(), "something")
	for _, key := range []attribute.Key{"url.path", "url.query", "url.full", "client.address", "network.peer.address",
		"user_agent.original", "server.address", "http.request.header.authorization", "db.query.text",
		"pgx.query.parameters", "db.namespace", "exception.message"} {
		span.SetAttributes(key.String("hunter2"))
	}
	span.SetAttributes(attribute.String("http.route", "/oss/callback"))
	span.RecordError(errors.New("hunter2"))
	span.SetStatus(codes.Error, "hunter2")
	span.AddEvent("hunter2")
	span.End()
	traces.Close()
	spans := sink.Spans()
	if len(spans) != 1 || spans[0].Name != "something" || spans[0].Service != "upcall-receiver" || len(spans[0].Attributes) != 1 ||
		spans[0].HasEvents || spans[0].HasMessage || strings.Contains(sink.Raw(), "hunter2") {
		t.Errorf("sent %+v", spans)
	}
}

// TestCollectorFails: an exporter that fails is logged once a minute, with how many spans are lost, and nothing waits.
func TestCollectorFails(t *testing.T) {
	t.Parallel()
	logger, lines := logtest.New()
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	exporter := &strict{SpanExporter: failing{}, logger: logger, now: func() time.Time { return now }}
	span := sdktrace.NewTracerProvider()
	_, one := span.Tracer("").Start(t.Context(), "x")
	spans := []sdktrace.ReadOnlySpan{one.(sdktrace.ReadOnlySpan), one.(sdktrace.ReadOnlySpan)}
	for range 5 {
		if err := exporter.ExportSpans(t.Context(), spans); err != nil {
			t.Error(err)
		}
	}
	if got := lines.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `"level":"WARN"`) ||
		!strings.Contains(got, `"spans":2,"error":"no collector"`) {
		t.Errorf("logged %s", got)
	}
	now = now.Add(logPause)
	_ = exporter.ExportSpans(t.Context(), spans) // never fails
	if got := lines.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, `"spans":10,`) {
		t.Errorf("logged %s", got)
	}
}

type failing struct{ sdktrace.SpanExporter }

func (failing) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error {
	return errors.New("no collector")
}

// TestCollectorHangs: far more spans than fit wait for nobody, and neither does the end.
func TestCollectorHangs(t *testing.T) {
	t.Parallel()
	asked, release := make(chan struct{}, 100), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked <- struct{}{}
		<-release
	}))
	defer server.Close()
	defer close(release)
	env := map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": server.URL}
	traces, err := New(t.Context(), "receiver", env, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for range 20_000 {
		_, end := traces.Batch()([]context.Context{t.Context()})
		end()
	}
	traces.Flush()
	wait.Until(t, "it is asked", func() bool { return len(asked) > 0 })
	closing := time.Now()
	traces.Close()
	if took := time.Since(closing); took > 5*time.Second || closing.Sub(began) > 9*time.Second { // an export takes ten
		t.Errorf("spans took %v, the end %v", closing.Sub(began), took)
	}
}

// TestBatchLinks: a batch is a trace of its own, which names those who wait for it.
func TestBatchLinks(t *testing.T) {
	t.Parallel()
	sink, traces := sending(t)
	caller, span := traces.tracer.Start(t.Context(), "callback")
	unsampled := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(
		trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}}))
	_, end := traces.Batch()([]context.Context{caller, t.Context(), unsampled, nil})
	end()
	span.End()
	traces.Close()
	spans := sink.Spans()
	if len(spans) != 2 || spans[0].Name != "record batch" || spans[0].Attributes["upcall.rows"] != "4" || spans[0].Parent != "" ||
		spans[0].Trace == spans[1].Trace || len(spans[0].Links) != 1 || spans[0].Links[0] != spans[1].ID {
		t.Errorf("sent %+v", spans)
	}
}
