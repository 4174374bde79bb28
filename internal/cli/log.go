package cli

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"upcall/internal/buildinfo"
	"upcall/internal/fault"
)

// LogFlags say how a service logs.
type LogFlags struct {
	LogLevel string `default:"info" placeholder:"LEVEL" setting:"UPCALL_LOG_LEVEL" help:"Least level to log: debug, info, warn or error."`
}

// Logger returns a logger that writes text to a terminal and JSON to anything else.
func (f LogFlags) Logger(w io.Writer) (*slog.Logger, error) {
	level, err := ParseLevel("UPCALL_LOG_LEVEL", f.LogLevel)
	options := &slog.HandlerOptions{Level: level}
	if IsTerminal(w) {
		return slog.New(slog.NewTextHandler(w, options)), err
	}
	return slog.New(slog.NewJSONHandler(w, options)), err
}

// ParseLevel reads a level, which the setting field holds.
func ParseLevel(field, text string) (slog.Level, error) {
	for name, level := range map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
	} {
		if text == name {
			return level, nil
		}
	}
	return slog.LevelInfo, fault.At(field, "%q is not a level; write debug, info, warn or error", text)
}

// Started logs that a service starts, as which build and with which settings. The function that it
// returns logs that it has stopped.
func Started(ctx context.Context, logger *slog.Logger, settings Settings) (stopped func()) {
	began := time.Now()
	logger.InfoContext(ctx, "starting", slog.Any("build", buildinfo.Current()), slog.Any("settings", settings),
		slog.Any("secrets", settings.secrets))
	return func() {
		logger.InfoContext(context.WithoutCancel(ctx), "stopped", slog.Int64("ran_ms", time.Since(began).Milliseconds()))
	}
}

// OnHangup calls reload after each SIGHUP until ctx ends. Without it, SIGHUP ends the process.
func OnHangup(ctx context.Context, reload func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	go func() {
		defer signal.Stop(signals)
		for {
			select {
			case <-signals:
				reload()
			case <-ctx.Done():
				return
			}
		}
	}()
}
