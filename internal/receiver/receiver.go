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
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"upcall/internal/admission"
	"upcall/internal/console"
	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/fault"
	"upcall/internal/feed"
	"upcall/internal/httpserver"
	"upcall/internal/intake"
	"upcall/internal/notify"
	"upcall/internal/recorder"
	"upcall/internal/spool"
	"upcall/internal/stream"
	"upcall/internal/tracing"
	"upcall/internal/verify"
	"upcall/internal/vitals"
)

const (
	// primaryTimeout is PostgreSQL's share of a callback's time if there is a spool, which
	// gets the other half.
	primaryTimeout = intake.Deadline / 2
	// DefaultMaxEvents leaves room for an uploader who tries again and again.
	DefaultMaxEvents = 100
	// schemaTimeout bounds the check of the database, and startTimeout how long the first
	// callbacks wait for it.
	schemaTimeout, startTimeout = 5 * time.Second, time.Second
	// workTimeout bounds the end of what runs besides the server, and closeTimeout that of all connection
	// pools: a PostgreSQL that stalls would take seconds of each. Nothing that was acknowledged depends on it.
	workTimeout, closeTimeout = 3 * time.Second, 500 * time.Millisecond
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

	// Stream takes the place of the spool, and cannot be used with one. Default none.
	Stream *stream.Config
	// StreamFront puts callbacks into the stream first, for bursts beyond PostgreSQL.
	StreamFront bool

	// RetentionDays is how long events are kept, at least eventstore.MinRetention; whole
	// months are dropped. Default 0: all are kept.
	RetentionDays int
	// Keeper takes events over before they are dropped. Default none.
	Keeper eventstore.Keeper
	// MaxEvents is the most callbacks to record for one upload, so that one token cannot fill
	// the database. Default DefaultMaxEvents; below 0 is no limit.
	MaxEvents int
	// MaxRefusals is the most refused callbacks to keep. Default
	// eventstore.DefaultMaxRefusals; below 0 keeps none.
	MaxRefusals int

	// CaptureDir is where the last refused callbacks are kept as they came, for the doctor. Default none.
	CaptureDir string

	// NotifyGrace is how long a notification waits for its callback, up to a day. 0 is not at all.
	NotifyGrace time.Duration

	// Hooks configures deliveries to applications.
	Hooks HooksConfig

	// Reply configures the reply hook. Default none.
	Reply *ReplyConfig

	// Notify has Path, Topics and Token of notify.Config. Default off.
	Notify notify.Config

	// Confirm configures confirmation. Default off.
	Confirm *ConfirmConfig

	// Reconcile configures regular comparisons of buckets with the log. Default none.
	Reconcile ReconcileConfig

	// Traces traces callbacks and the batches that record them. Default none.
	Traces *tracing.Traces
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
	return fault.Join(cfg.Admission.Check(), trustErr, spoolErr, cfg.checkStream(), checkRetention(cfg.RetentionDays), cfg.Reply.check(),
		cfg.notify().Check(), checkGrace(cfg.NotifyGrace), cfg.checkReconcile(), cfg.checkCaptures())
}

// gcPercent replaces Go's default of 100, and ballast counts as heap but is never touched, and so
// takes no memory. What a callback leaves behind is short-lived and the heap is small: collecting
// it after some 44 MiB, not after 4, saves more CPU time than the memory is worth.
const (
	gcPercent = 200
	ballast   = 13 << 20 // bytes
)

// Run serves callbacks on public and health and metrics on admin until ctx ends, then answers
// the callbacks it has accepted and returns.
//
// It returns an error that wraps migrations.ErrTooOld if the schema is too old,
// spool.ErrInUse if another process uses the spool, stream.ErrUnfit if the stream could lose callbacks,
// and eventstore.ErrMistake if the login
// fails, or rights or this month's partition are missing. An unreachable database is not an
// error: until it can be reached, callbacks wait in the spool or the stream. Without them the receiver is
// not ready and answers with 503, so that OSS tries its next URL.
func Run(ctx context.Context, cfg Config, public, admin net.Listener) error {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	defer cfg.Traces.Close()
	if os.Getenv("GOGC") == "" && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetGCPercent(gcPercent)
		defer runtime.KeepAlive(make([]byte, ballast))
	}
	janitor, err := cfg.openJanitor(ctx)
	if err != nil {
		return err
	}
	var leaving farewell
	defer leaving.to(janitor.Pool.Close)
	checked := make(chan error, 1)
	go func() { checked <- checkDatabase(ctx, janitor) }()
	away := error(nil)
	select {
	case away = <-checked:
		checked <- away
	case <-time.After(startTimeout):
		away = errors.New("it does not answer")
	}
	if isMistake(away) {
		return away
	}
	if away != nil {
		cfg.Logger.WarnContext(ctx, "database cannot be reached",
			slog.String("fallback", string(cmp.Or(cfg.durable(), "none"))), slog.String("error", away.Error()))
	}
	verifier, err := verify.New(verify.Config{TrustKeyURLs: cfg.TrustKeyURLs})
	if err != nil {
		return err
	}

	queue, closeQueue, err := cfg.openFallback(ctx, janitor)
	if err != nil {
		return err
	}
	defer closeQueue()
	writers, err := eventstore.OpenTracedRecorder(ctx, cfg.DatabaseURL, cfg.Traces.Queries())
	if err != nil {
		return err
	}
	defer leaving.to(writers.Close)
	readers, err := eventstore.OpenFeed(ctx, cfg.DatabaseURL)
	if err != nil {
		return err
	}
	defer leaving.to(readers.Close)
	log, err := feed.New(feed.Config{Pool: readers, Logger: cfg.Logger, Now: cfg.Now})
	if err != nil {
		return err
	}
	deliveries, err := cfg.newHooks(ctx, log, janitor)
	if err != nil {
		return err
	}
	defer leaving.to(deliveries.close)
	rollups, closeRollups, err := cfg.newRollups(ctx, log)
	if err != nil {
		return err
	}
	defer leaving.to(closeRollups)
	metrics, batches, registry := intake.NewMetrics(), eventstore.NewBatches("upcall", "Callbacks"), httpserver.NewRegistry()
	folds, err := cfg.newFold(janitor, metrics, log)
	if err != nil {
		return err
	}
	storeConfig := eventstore.Config{
		Pool: writers, Now: cfg.Now, KeepDays: cfg.RetentionDays,
		OnBatch:   func(rows int, took time.Duration) { batches.Observe(rows, took); log.Wake() },
		MaxEvents: max(cmp.Or(cfg.MaxEvents, DefaultMaxEvents), 0), Batch: cfg.Traces.Batch(),
	}
	if queue != nil {
		registry.MustRegister(queue.Collectors()...)
		storeConfig.CommitTimeout = primaryTimeout // callers wait no longer
		storeConfig.LimitAcknowledged = cfg.StreamFront
	}
	store, err := eventstore.NewRecorder(storeConfig)
	if err != nil {
		return err
	}
	defer leaving.to(store.Close)
	failover := recorder.New(store, queue, recorder.Config{
		PrimaryTimeout: primaryTimeout, MaxEvents: storeConfig.MaxEvents, Away: away != nil, Durable: cfg.durable(), Front: cfg.StreamFront,
		Logger: cfg.Logger,
	})
	slots := &eventstore.SlotLag{Pool: janitor.Pool}
	registry.MustRegister(slots)
	registry.MustRegister(slices.Concat(metrics.Collectors(), batches.Collectors(), failover.Collectors(), janitor.Collectors(),
		log.Collectors(), deliveries.pump.Collectors(), rollups.Collectors(), folds.Collectors())...)

	parts := intake.Config{
		Admission: cfg.Admission, Verifier: verifier, Recorder: failover, Proxies: cfg.Proxies, Trace: cfg.Traces.Callbacks(),
		Metrics: metrics, Logger: cfg.Logger, Now: cfg.Now,
	}
	if janitor.Refusals != nil {
		parts.Refusals = janitor.Refusals
	}
	if cfg.Reply != nil {
		asking, err := cfg.newReply(store)
		if err != nil {
			return err
		}
		defer asking.Close()
		registry.MustRegister(asking.Collectors()...)
		parts.Reply, parts.ReplyReplaces = asking, cfg.Reply.Replace
	}
	captures, err := cfg.openCaptures()
	if err != nil {
		return err
	}
	defer captures.close()
	if captures.dir != nil {
		registry.MustRegister(captures.dir.Collectors()...)
		parts.Captures = captures.dir
	}
	server, err := intake.New(parts)
	if err != nil {
		return err
	}
	if notifications, err := cfg.newNotifications(verifier, failover, server); err != nil {
		return err
	} else if notifications != nil {
		registry.MustRegister(notifications.Collectors()...)
		server.Add(notifications)
	}

	confirming, closeConfirm, err := cfg.newConfirm(ctx, log)
	if err != nil {
		return err
	}
	defer leaving.to(closeConfirm)
	comparisons, closeComparisons, err := cfg.newComparisons(ctx, metrics, log)
	if err != nil {
		return err
	}
	defer leaving.to(closeComparisons)
	isReady := func(ctx context.Context) (string, error) { return ready(ctx, failover, janitor, queue, cfg.durable()) }
	signs := vitals.New(registry)
	calls, err := cfg.newAPI(log, janitor, deliveries, rollups, folds, confirming, queue, signs, captures, isReady)
	if err != nil {
		return err
	}
	registry.MustRegister(calls.Collectors()...)
	pages, err := console.New(console.Config{API: calls, Logger: cfg.Logger, Now: cfg.Now})
	if err != nil {
		return err
	}
	if away == nil {
		deliveries.declare(ctx)
	}
	// The workers stop after the last callback is answered.
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	var workers sync.WaitGroup
	if queue != nil {
		if queue, ok := queue.(*spool.Spool); ok {
			workers.Go(func() { queue.Serve(working) })
		}
		eraser := &fallbackEraser{queue: queue, name: string(cfg.durable()), logger: cfg.Logger, requests: func(ctx context.Context, since time.Time) ([]event.Erasure, error) {
			return eventstore.Erasures(ctx, janitor.Pool, since)
		}}
		workers.Go(func() { eraser.run(working) })
	}
	if confirming != nil {
		registry.MustRegister(confirming.Collectors()...)
		workers.Go(func() { confirming.Run(working) })
	}
	if comparisons != nil {
		registry.MustRegister(comparisons.Metrics.Collectors()...)
		workers.Go(func() { comparisons.Run(working) })
	}
	for _, work := range []func(context.Context){failover.Run, janitor.Run, slots.Run, log.Run, deliveries.run, rollups.Run,
		folds.Run, signs.Run, captures.run, func(ctx context.Context) {
			ctx, cancel := context.WithTimeout(ctx, schemaTimeout)
			defer cancel()
			_ = failover.Check(ctx) // so that upcall_database_away is true before the first callback
		}} {
		workers.Go(func() { work(working) })
	}
	defer func() { stop(); within(workTimeout, workers.Wait) }()
	ctx, mistaken := context.WithCancelCause(ctx)
	defer mistaken(nil)
	workers.Go(func() {
		select {
		case err := <-checked: // perhaps later than the start
			if isMistake(err) {
				mistaken(err)
			}
		case <-working.Done():
		}
	})
	cfg.Logger.InfoContext(ctx, "serving",
		slog.String("listen", public.Addr().String()), slog.String("admin_listen", admin.Addr().String()))
	private := httpserver.Admin(isReady, registry)
	calls.Register(private)
	pages.Register(private)
	adminServer := httpserver.New(private, cfg.Logger)
	adminServer.RegisterOnShutdown(calls.Stop)
	defer context.AfterFunc(ctx, calls.Stop)()
	err = server.Serve(ctx, public, httpserver.Site{Server: adminServer, Listener: admin})
	cfg.Traces.Flush()
	if cause := context.Cause(ctx); isMistake(cause) {
		return cause
	}
	return err
}
