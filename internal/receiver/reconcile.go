package receiver

import (
	"context"
	"errors"
	"time"

	"upcall/internal/eventstore"
	"upcall/internal/fault"
	"upcall/internal/feed"
	"upcall/internal/intake"
	"upcall/internal/oss"
	"upcall/internal/reconcile"
)

// ReconcileConfig configures regular comparisons of buckets with the log.
type ReconcileConfig struct {
	// Every is from one comparison of a bucket to the next, at least reconcile.MinEvery. Default 0: none.
	Every time.Duration
	// Grace is as in reconcile.Config.
	Grace time.Duration
	// OSS is where the buckets are.
	OSS oss.Config
}

var errReconcile = errors.New("comparison of buckets")

func (cfg Config) checkReconcile() error {
	var faults fault.List
	switch every := cfg.Reconcile.Every; {
	case every == 0:
		return nil
	case every < reconcile.MinEvery:
		faults.AddNew(errReconcile, "UPCALL_RECONCILE_EVERY", "give 24h, or 0s for none", "%s is less than %s",
			every, reconcile.MinEvery)
	}
	if len(cfg.Admission.Buckets) == 0 {
		faults.AddNew(errReconcile, "UPCALL_BUCKETS", "name the buckets",
			"is empty, and UPCALL_RECONCILE_EVERY needs to know what to compare")
	}
	return faults.Err()
}

// newComparisons returns what compares buckets, nil if nothing does, and the function that closes its
// connections.
func (cfg Config) newComparisons(ctx context.Context, metrics *intake.Metrics, log *feed.Log) (*reconcile.Schedule, func(), error) {
	if cfg.Reconcile.Every == 0 {
		return nil, func() {}, nil
	}
	client, err := oss.New(cfg.Reconcile.OSS)
	if err != nil {
		return nil, nil, err
	}
	pool, err := eventstore.OpenFeed(ctx, cfg.DatabaseURL)
	if err != nil {
		return nil, nil, err
	}
	return &reconcile.Schedule{Buckets: cfg.Admission.Buckets, Every: cfg.Reconcile.Every, Config: reconcile.Config{
		Pool: pool, Log: log, OSS: client, Grace: cfg.Reconcile.Grace, KeepDays: cfg.RetentionDays, Metrics: reconcile.NewMetrics(),
		Known: metrics.ObserveKnown, Logger: cfg.Logger, Now: cfg.Now}}, pool.Close, nil
}
