// Package receiver assembles a receiver, from the database to the listeners, and runs it. The
// program and the demo run the same one.
package receiver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"upcall/internal/admission"
	"upcall/internal/eventstore"
	"upcall/internal/fault"
	"upcall/internal/httpserver"
	"upcall/internal/intake"
	"upcall/internal/recorder"
	"upcall/internal/spool"
	"upcall/internal/verify"
	"upcall/migrations"
)

const (
	// primaryTimeout is PostgreSQL's share of a callback's time if there is a spool, which
	// gets the other half.
	primaryTimeout = intake.Deadline / 2
	// schemaTimeout bounds the check of the schema.
	schemaTimeout = 5 * time.Second
)

// Config configures a receiver.
type Config struct {
	// DatabaseURL of PostgreSQL. Required.
	DatabaseURL string
	// TrustKeyURLs are exact URLs of public keys to trust besides OSS's own.
	TrustKeyURLs []string

	// Admission says which callbacks are acceptable. It is as in intake.Config.
	Admission admission.Config

	// Proxies are our own, between OSS and us. Default none.
	Proxies httpserver.Proxies

	// SpoolDir is where callbacks wait while PostgreSQL is unavailable. Default none: they are
	// refused.
	SpoolDir string
	// These are as in spool.Config.
	SpoolMaxBytes     int64
	SpoolMinFreeBytes int64

	// RetentionDays is how long events are kept, at least eventstore.MinRetention; whole
	// months are dropped. Default 0: all are kept.
	RetentionDays int
	// MaxRefusals is the most refused callbacks to keep. Default
	// eventstore.DefaultMaxRefusals; below 0 keeps none.
	MaxRefusals int

	// Logger gets one event for each request. Required.
	Logger *slog.Logger
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Check returns all mistakes in the settings, without connecting anywhere.
func (cfg Config) Check() error {
	_, trustErr := verify.New(verify.Config{TrustKeyURLs: cfg.TrustKeyURLs})
	var spoolErr error
	if cfg.SpoolMaxBytes < 0 {
		spoolErr = fmt.Errorf("spool limit of %d bytes is negative", cfg.SpoolMaxBytes)
	}
	return fault.Join(cfg.Admission.Check(), trustErr, spoolErr, checkRetention(cfg.RetentionDays))
}

// Run serves callbacks on public and health and metrics on admin until ctx ends, then answers
// the callbacks it has accepted and returns.
//
// It returns an error that wraps migrations.ErrTooOld if the schema is too old, and
// spool.ErrInUse if another process uses the spool. An unreachable database is not an error:
// until it can be reached, callbacks wait in the spool. Without a spool the receiver is not
// ready and answers with 503, so that OSS tries its next URL.
func Run(ctx context.Context, cfg Config, public, admin net.Listener) error {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	pool, err := eventstore.Open(ctx, cfg.DatabaseURL)
	if err != nil {
		return err
	}
	defer pool.Close()
	janitor := &eventstore.Janitor{Pool: pool, RetentionDays: cfg.RetentionDays, Now: cfg.Now, Logger: cfg.Logger}
	if cfg.MaxRefusals >= 0 {
		if janitor.Refusals, err = eventstore.NewRefusals(pool, cmp.Or(cfg.MaxRefusals, eventstore.DefaultMaxRefusals)); err != nil {
			return err
		}
	}
	switch err := checkSchema(ctx, pool); {
	case isSchemaError(err):
		return err
	case err != nil:
		cfg.Logger.WarnContext(ctx, "database cannot be reached", slog.Bool("spool", cfg.SpoolDir != ""), slog.String("error", err.Error()))
	default: // now, so that the first callback need not wait for its month
		_ = janitor.MakePartitions(ctx) // janitor.Run retries, and logs the error
	}
	verifier, err := verify.New(verify.Config{TrustKeyURLs: cfg.TrustKeyURLs})
	if err != nil {
		return err
	}

	queue, closeSpool, err := cfg.openSpool(ctx)
	if err != nil {
		return err
	}
	defer closeSpool()
	writers, err := eventstore.OpenRecorder(ctx, cfg.DatabaseURL)
	if err != nil {
		return err
	}
	defer writers.Close()
	metrics, batches, registry := intake.NewMetrics(), eventstore.NewBatches("upcall", "Callbacks"), httpserver.NewRegistry()
	storeConfig := eventstore.Config{Pool: writers, OnBatch: batches.Observe}
	var fallback recorder.Fallback
	if queue != nil {
		fallback = queue
		registry.MustRegister(queue.Collectors()...)
		storeConfig.CommitTimeout = primaryTimeout // callers wait no longer
	}
	store, err := eventstore.NewRecorder(storeConfig)
	if err != nil {
		return err
	}
	defer store.Close()
	failover := recorder.New(store, fallback, recorder.Config{PrimaryTimeout: primaryTimeout, Logger: cfg.Logger})
	registry.MustRegister(slices.Concat(metrics.Collectors(), batches.Collectors(), failover.Collectors())...)

	parts := intake.Config{
		Admission: cfg.Admission, Verifier: verifier, Recorder: failover, Proxies: cfg.Proxies,
		Metrics: metrics, Logger: cfg.Logger, Now: cfg.Now,
	}
	if janitor.Refusals != nil {
		parts.Refusals = janitor.Refusals
	}
	server, err := intake.New(parts)
	if err != nil {
		return err
	}

	// The workers stop after the last callback is answered.
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	var workers sync.WaitGroup
	for _, work := range []func(context.Context){failover.Run, janitor.Run} {
		workers.Go(func() { work(working) })
	}
	defer func() { stop(); workers.Wait() }()
	cfg.Logger.InfoContext(ctx, "serving", slog.String("listen", public.Addr().String()), slog.String("admin_listen", admin.Addr().String()))
	private := httpserver.Admin(func(ctx context.Context) error { return ready(ctx, pool, queue) }, registry)
	return server.Serve(ctx, public, httpserver.Site{Server: httpserver.New(private, cfg.Logger), Listener: admin})
}

// openSpool returns the spool, nil if there is none, and the function that closes it.
func (cfg Config) openSpool(ctx context.Context) (*spool.Spool, func(), error) {
	if cfg.SpoolDir == "" {
		return nil, func() {}, nil
	}
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

// ready returns an error if neither PostgreSQL nor the spool can take callbacks.
func ready(ctx context.Context, db migrations.Querier, queue *spool.Spool) error {
	err := checkSchema(ctx, db)
	if err == nil || isSchemaError(err) || queue == nil {
		return err
	}
	if full := queue.Ready(); full != nil {
		return fmt.Errorf("%w; %w", err, full)
	}
	return nil
}

func checkSchema(ctx context.Context, db migrations.Querier) error {
	ctx, cancel := context.WithTimeout(ctx, schemaTimeout)
	defer cancel()
	return migrations.Check(ctx, db)
}

func isSchemaError(err error) bool {
	return errors.Is(err, migrations.ErrTooOld) || errors.Is(err, migrations.ErrDirty)
}
