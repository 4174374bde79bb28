package receiver

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"upcall/internal/admission"
	"upcall/internal/event"
	"upcall/internal/eventstore"
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
	var faults fault.List
	if cfg.Stream == nil && cfg.StreamFront {
		faults.AddNew(nil, "UPCALL_STREAM_MODE", "set UPCALL_STREAM_URL", "there is no stream")
	}
	if cfg.Stream == nil {
		return faults.Err()
	}
	if cfg.SpoolDir != "" {
		faults.AddNew(nil, "UPCALL_SPOOL_DIR", "move what is in it with receiver spool drain, then unset it",
			"UPCALL_STREAM_URL takes the place of the spool")
	}
	faults.Add(cfg.Stream.Check())
	return faults.Err()
}

// openFallback returns the fallback, nil if there is none, and the function that closes it.
func (cfg Config) openFallback(ctx context.Context, janitor *eventstore.Janitor) (fallback, func(), error) {
	switch cfg.durable() {
	case recorder.InStream:
		config := *cfg.Stream
		config.Logger, config.Now = cfg.Logger, cfg.Now
		if cfg.StreamFront {
			config.Refused = cfg.refusedAfter(janitor)
		}
		queue, err := stream.OpenGroup(ctx, config)
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

// markTimeout bounds the writing of a mark.
const markTimeout = 5 * time.Second

// refusedAfter returns what leaves a mark of an event that PostgreSQL refused although its callback was answered 200. The
// refusal itself, for a revoked upload, was committed by the recorder.
func (cfg Config) refusedAfter(janitor *eventstore.Janitor) func(context.Context, *event.Event, error) {
	return func(ctx context.Context, e *event.Event, why error) {
		reason := admission.ReasonRevokedAfter
		if errors.Is(why, event.ErrOverused) {
			reason = admission.ReasonOverusedAfter
		}
		cfg.Logger.WarnContext(ctx, "acknowledged callback refused", slog.String("event_id", e.ID.String()),
			slog.String("upload_id", e.UploadID.UUID.String()), slog.String("reason", string(reason)))
		if janitor.Refusals == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), markTimeout)
		defer cancel()
		err := janitor.Refusals.Keep(ctx, []event.RefusedCallback{{Digest: e.ID, Reason: string(reason), At: e.ReceivedAt, Source: e.SourceAddr,
			Bucket: e.Callback.Bucket, Object: e.Callback.Object, RequestID: e.Callback.RequestID, UploadID: e.UploadID}})
		if err != nil {
			cfg.Logger.WarnContext(ctx, "refusal was not kept", slog.String("error", err.Error()))
		}
	}
}
