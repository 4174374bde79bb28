package tracing

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// rowsKey is the number of rows in a batch.
const rowsKey = "upcall.rows"

// sent are the attributes that leave the process. Libraries add more with each version, and among them are paths, queries,
// addresses, host names and texts of errors, which may hold tokens, signatures and what users wrote. Only what is known to
// hold none is sent.
var sent = map[attribute.Key]bool{
	"http.request.method": true, "http.route": true, "http.response.status_code": true, "http.response.body.size": true,
	"network.protocol.version": true, "url.scheme": true,
	"db.system.name": true, "db.operation.name": true, "pgx.rows_affected": true, "pgx.sql_state": true,
	rowsKey: true,
}

// logPause is how long after an error the next one is logged.
const logPause = time.Minute

// strict is an exporter that sends only what is in sent, and that fails without a word to the SDK, whose way to report
// errors is one for the whole process.
type strict struct {
	sdktrace.SpanExporter
	logger *slog.Logger
	now    func() time.Time

	mu     sync.Mutex
	logged time.Time
	lost   int // spans since then
}

// ExportSpans sends spans, or logs that it could not.
func (s *strict) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	bare := make([]sdktrace.ReadOnlySpan, len(spans))
	for i, span := range spans {
		bare[i] = reduce(span)
	}
	if err := s.SpanExporter.ExportSpans(ctx, bare); err != nil {
		s.failed(ctx, len(spans), err)
	}
	return nil
}

func (s *strict) failed(ctx context.Context, spans int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost += spans
	if now := s.now(); now.Sub(s.logged) >= logPause {
		s.logger.WarnContext(context.WithoutCancel(ctx), "traces were not sent", slog.Int("spans", s.lost),
			slog.String("error", err.Error()))
		s.logged, s.lost = now, 0
	}
}

// A reduced span has only what may leave the process.
type reduced struct {
	sdktrace.ReadOnlySpan
	attributes []attribute.KeyValue
}

func reduce(span sdktrace.ReadOnlySpan) reduced {
	r := reduced{ReadOnlySpan: span}
	for _, a := range span.Attributes() {
		if sent[a.Key] {
			r.attributes = append(r.attributes, a)
		}
	}
	return r
}

// SpanContext has no tracestate: it is text of the caller, who need not have proved who they are.
func (r reduced) SpanContext() trace.SpanContext {
	return r.ReadOnlySpan.SpanContext().WithTraceState(trace.TraceState{})
}

// Parent has none either.
func (r reduced) Parent() trace.SpanContext {
	return r.ReadOnlySpan.Parent().WithTraceState(trace.TraceState{})
}

// Links have neither tracestates nor attributes.
func (r reduced) Links() []sdktrace.Link {
	var bare []sdktrace.Link
	for _, link := range r.ReadOnlySpan.Links() {
		bare = append(bare, sdktrace.Link{SpanContext: link.SpanContext.WithTraceState(trace.TraceState{})})
	}
	return bare
}

// Attributes returns those that are in sent.
func (r reduced) Attributes() []attribute.KeyValue { return r.attributes }

// Events returns none: they are errors with their texts.
func (r reduced) Events() []sdktrace.Event { return nil }

// Status has no text.
func (r reduced) Status() sdktrace.Status { return sdktrace.Status{Code: r.ReadOnlySpan.Status().Code} }
