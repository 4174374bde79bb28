package tracing

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
)

// report has the SDK log to logger instead of standard error. It has one way to report for the whole process, and it
// adds values of variables to its messages, which may be credentials: only messages and types of errors are logged.
func report(logger *slog.Logger) {
	otel.SetLogger(logr.FromSlogHandler(valueless{logger.Handler()}))
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		logger.WarnContext(context.Background(), "OpenTelemetry failed", slog.String("type", fmt.Sprintf("%T", err)))
	}))
}

// valueless logs the messages of errors without their attributes.
type valueless struct{ slog.Handler }

func (v valueless) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelError && v.Handler.Enabled(ctx, level)
}

func (v valueless) Handle(ctx context.Context, r slog.Record) error {
	return v.Handler.Handle(ctx, slog.NewRecord(r.Time, r.Level, "OpenTelemetry: "+r.Message, r.PC))
}
