// Package tracing sends OpenTelemetry traces: a span for each request, and one for each batch of rows with those of
// its statements. The standard OTEL_ variables turn it on; without them there is no [Traces], and nothing is traced.
package tracing

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/exaring/otelpgx"
	"github.com/gin-gonic/gin"
	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/contrib/instrumentation/github.com/gin-gonic/gin/otelgin"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"upcall/internal/buildinfo"
)

const (
	// scope names what begins our own spans.
	scope = "upcall"
	// flushTimeout and closeTimeout bound what a program that stops waits for the collector. What is left is dropped.
	flushTimeout, closeTimeout = 2 * time.Second, 250 * time.Millisecond
)

// Traces sends spans. A nil *Traces sends none, and what it returns is nil.
type Traces struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
	queries  pgx.QueryTracer
}

// New returns what the variables ask for, nil if they ask for none. The endpoint is from env; all else that the
// specification names, such as OTEL_EXPORTER_OTLP_HEADERS or OTEL_TRACES_SAMPLER, the SDK reads from the
// environment of the process, which env must be. Nothing is sent yet. The error is that of [Check].
//
// Nothing ever waits for the collector. Spans that it does not take are dropped, and the logger is told; those that
// come faster than they can be sent, when the queue is full, are dropped without a word.
func New(ctx context.Context, service string, env map[string]string, logger *slog.Logger) (*Traces, error) {
	url, err := endpoint(env)
	if err != nil || url == "" {
		return nil, err
	}
	report(logger)
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(url))
	if err != nil {
		return nil, fmt.Errorf("make the exporter of traces: %w", err)
	}
	build := buildinfo.Current()
	about, err := resource.New(ctx, resource.WithTelemetrySDK(),
		resource.WithAttributes(attribute.String("service.name", "upcall-"+service), attribute.String("service.version", build.Version)),
		resource.WithFromEnv()) // not of the process: a command line may hold secrets
	if err != nil {
		return nil, fmt.Errorf("describe this program for traces: %w", err)
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithResource(about),
		sdktrace.WithBatcher(&strict{SpanExporter: exporter, logger: logger, now: time.Now}))
	return &Traces{
		provider: provider, tracer: provider.Tracer(scope),
		queries: otelpgx.NewTracer(otelpgx.WithTracerProvider(provider), otelpgx.WithDisableConnectionDetailsInAttributes()),
	}, nil
}

// Callbacks returns middleware that traces callbacks. Each is a trace of its own: OSS sends no traceparent, and a
// stranger who does must not decide what is sampled, or what our spans belong to. What scanners ask for is not traced.
func (t *Traces) Callbacks() gin.HandlerFunc {
	if t == nil {
		return nil
	}
	fromNobody := propagation.NewCompositeTextMapPropagator()
	return otelgin.Middleware("", otelgin.WithTracerProvider(t.provider), otelgin.WithPropagators(fromNobody),
		otelgin.WithSpanNameFormatter(name), otelgin.WithGinFilter(func(c *gin.Context) bool {
			return c.FullPath() != "" || c.Request.Method == http.MethodPost && c.GetHeader("X-Oss-Pub-Key-Url") != ""
		}))
}

// Calls returns middleware that traces calls of applications, which go on with the trace that their traceparent names.
func (t *Traces) Calls() gin.HandlerFunc {
	if t == nil {
		return nil
	}
	return otelgin.Middleware("", otelgin.WithTracerProvider(t.provider), otelgin.WithPropagators(propagation.TraceContext{}),
		otelgin.WithSpanNameFormatter(name), otelgin.WithGinFilter(func(c *gin.Context) bool { return c.FullPath() != "" }))
}

// name returns the name of the span of a request. The path is the route's: what stands for its parameters is the sender's.
func name(c *gin.Context) string {
	if c.FullPath() == "" { // a callback path with parameters
		return "callback"
	}
	return c.Request.Method + " " + c.FullPath()
}

// Queries traces statements whose context has a span.
func (t *Traces) Queries() pgx.QueryTracer {
	if t == nil {
		return nil
	}
	return t.queries
}

// Batch returns what begins the span of a batch of rows, which is linked to the spans of those who wait for it. It returns
// the context of the batch's statements, and what ends the span.
func (t *Traces) Batch() func(callers []context.Context) (context.Context, func()) {
	if t == nil {
		return nil
	}
	return func(callers []context.Context) (context.Context, func()) {
		var links []trace.Link
		for _, caller := range callers {
			if span := trace.SpanContextFromContext(caller); span.IsSampled() {
				links = append(links, trace.Link{SpanContext: span})
			}
		}
		ctx, span := t.tracer.Start(context.Background(), "record batch", trace.WithLinks(links...),
			trace.WithAttributes(attribute.Int(rowsKey, len(callers))))
		return ctx, func() { span.End() }
	}
}

// Flush begins to send what is left.
func (t *Traces) Flush() {
	if t == nil {
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
		defer cancel()
		_ = t.provider.ForceFlush(ctx) // the exporter logs
	}()
}

// Close sends what is left, for a moment.
func (t *Traces) Close() {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = t.provider.Shutdown(ctx) // the exporter logs
}
