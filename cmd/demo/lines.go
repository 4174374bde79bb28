package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"time"
)

// callbackLines writes a line for each callback that the receiver logs, besides the log itself.
type callbackLines struct {
	slog.Handler
	told *told
}

// Enabled says that the receiver has to log callbacks, even if nobody reads the log.
func (h callbackLines) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo || h.Handler.Enabled(ctx, level)
}

// Handle writes the line.
func (h callbackLines) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "callback" && r.Level >= slog.LevelInfo {
		select {
		case h.told.lines <- callbackLine(r):
		default: // a terminal that was stopped must not stop the answers to OSS
		}
	}
	if !h.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs and WithGroup keep the lines.
func (h callbackLines) WithAttrs(attrs []slog.Attr) slog.Handler {
	return callbackLines{h.Handler.WithAttrs(attrs), h.told}
}

// WithGroup is as WithAttrs.
func (h callbackLines) WithGroup(name string) slog.Handler {
	return callbackLines{h.Handler.WithGroup(name), h.told}
}

func callbackLine(r slog.Record) string {
	said := make(map[string]string)
	var took time.Duration
	r.Attrs(func(a slog.Attr) bool {
		if said[a.Key] = a.Value.String(); a.Key == "took_ms" {
			took = time.Duration(a.Value.Float64() * float64(time.Millisecond))
		}
		return true
	})
	why := ""
	if said["reason"] != "" {
		why = " (" + said["reason"] + ")"
	}
	return fmt.Sprintf("%s callback %s %s%s: %q in %s, %v\n", r.Time.Format(time.TimeOnly), said["status"], said["outcome"], why,
		said["object_key"], cmp.Or(said["bucket"], "no bucket"), took.Round(100*time.Microsecond))
}
