package receiver

import (
	"context"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"upcall/internal/event"
	"upcall/internal/fault"
	"upcall/internal/recorder"
	"upcall/internal/spool"
	"upcall/internal/stream"
)

// A fallback is where callbacks wait for PostgreSQL: the spool or the stream. Everything about it that is not
// recording goes through this.
type fallback interface {
	recorder.Fallback
	Ready() error
	Erase(ctx context.Context, requests []event.Erasure) (erased int, err error)
	Collectors() []prometheus.Collector
}

// durable returns what the fallback is called, "" if there is none.
func (cfg Config) durable() recorder.Durable {
	switch {
	case cfg.Stream != nil:
		return recorder.InStream
	case cfg.SpoolDir != "":
		return recorder.InSpool
	}
	return ""
}

// checkStream returns the mistakes in the settings of the stream.
func (cfg Config) checkStream() error {
	if cfg.Stream == nil {
		return nil
	}
	var faults fault.List
	if cfg.SpoolDir != "" {
		faults.AddNew(nil, "UPCALL_SPOOL_DIR", "move what is in it with receiver spool drain, then unset it",
			"UPCALL_STREAM_URL takes the place of the spool")
	}
	faults.Add(cfg.Stream.Check())
	return faults.Err()
}

// openFallback returns the fallback, nil if there is none, and the function that closes it.
func (cfg Config) openFallback(ctx context.Context) (fallback, func(), error) {
	switch cfg.durable() {
	case recorder.InStream:
		config := *cfg.Stream
		config.Logger, config.Now = cfg.Logger, cfg.Now
		queue, err := stream.Open(ctx, config)
		if err != nil {
			return nil, nil, err
		}
		return queue, queue.Close, nil
	case recorder.InSpool:
		queue, err := spool.Open(ctx, spool.Config{
			Dir: cfg.SpoolDir, MaxBytes: cfg.SpoolMaxBytes, MinFreeBytes: cfg.SpoolMinFreeBytes, Logger: cfg.Logger, Now: cfg.Now})
		if err != nil {
			return nil, nil, err
		}
		return queue, func() {
			if err := queue.Close(); err != nil {
				cfg.Logger.ErrorContext(ctx, "spool was not closed cleanly", slog.String("error", err.Error()))
			}
		}, nil
	}
	return nil, func() {}, nil
}
