// Package receiver puts a receiver together, from the database to the listeners, and
// runs it until it is told to stop. The program and the demo run the same one.
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
	// primaryTimeout is what PostgreSQL gets of a callback's time when there is a spool to
	// turn to, so that the disk gets the other half.
	primaryTimeout = intake.Deadline / 2
	// schemaTimeout bounds the question what schema the database has.
	schemaTimeout = 5 * time.Second
)

// Config says what receiver to run.
type Config struct {
	// DatabaseURL of PostgreSQL. Required.
	DatabaseURL string
	// TrustKeyURLs are exact URLs of public keys to trust besides OSS's own.
	TrustKeyURLs []string

	// Admission says which callbacks are acceptable. It is as in intake.Config.
	Admission admission.Config

	// SpoolDir is where callbacks wait while PostgreSQL is away. Default none: they are
	// refused then.
	SpoolDir string
	// These are as in spool.Config.
	SpoolMaxBytes     int64
	SpoolMinFreeBytes int64

	// RetentionDays is how long events are kept, whole months at a time; at least
	// eventstore.MinRetention. Default 0: all are kept.
	RetentionDays int
	// MaxRefusals is how many refused callbacks are kept at most. Default
	// eventstore.DefaultMaxRefusals; below 0 keeps none.
	MaxRefusals int

	// Logger gets one event for each request. Required.
	Logger *slog.Logger
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Check returns all mistakes in what people set, joined, without connecting anywhere.
func (cfg Config) Check() error {
	_, trustErr := verify.New(verify.Config{TrustKeyURLs: cfg.TrustKeyURLs})
	var spoolErr error
	if cfg.SpoolMaxBytes < 0 {
		spoolErr = fmt.Errorf("spool limit of %d bytes is negative", cfg.SpoolMaxBytes)
	}
	return fault.Join(cfg.Admission.Check(), trustErr, spoolErr, checkRetention(cfg.RetentionDays))
}

// Run serves callbacks on public and health and metrics on admin until ctx ends, then
// answers what it has accepted and returns.
//
// It refuses to serve on a schema that is too old, with an error that wraps
// migrations.ErrTooOld, and with a spool that another process has (spool.ErrInUse). A
// database that cannot be reached is no error: it may come back, and until then callbacks
// wait in the spool. Without one the receiver is not ready and answers with 503, so that
// OSS tries its next URL.
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
	default: // before the first callback, which would have to wait for its month
		_ = janitor.MakePartitions(ctx) // it tries again, and says why it could not
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
		storeConfig.CommitTimeout = primaryTimeout // nothing waits longer
	}
	store, err := eventstore.NewRecorder(storeConfig)
	if err != nil {
		return err
	}
	defer store.Close()
	failover := recorder.New(store, fallback, recorder.Config{PrimaryTimeout: primaryTimeout, Logger: cfg.Logger})
	registry.MustRegister(slices.Concat(metrics.Collectors(), batches.Collectors(), failover.Collectors())...)

	parts := intake.Config{
		Admission: cfg.Admission, Verifier: verifier, Recorder: failover, Metrics: metrics, Logger: cfg.Logger, Now: cfg.Now,
	}
	if janitor.Refusals != nil {
		parts.Refusals = janitor.Refusals
	}
	server, err := intake.New(parts)
	if err != nil {
		return err
	}

	// They work until the last callback is answered.
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

// openSpool returns the spool, or nil where there is to be none, and what to do at the end.
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
			cfg.Logger.ErrorContext(ctx, "spool was not closed well", slog.String("error", err.Error()))
		}
	}, nil
}

// ready tells why no callbacks should come: PostgreSQL cannot take them, nor the spool.
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
