package reconcile

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"time"

	"upcall/internal/fault"
)

// MinEvery is the shortest time between two runs: each lists the whole bucket.
const MinEvery = time.Minute

// errNotDue says that another process has made the run meanwhile.
var errNotDue = errors.New("the run is not due")

// A Schedule runs regularly on whole buckets, one at a time. Of all receivers with one, only one makes
// each run; if it ends, another goes on.
type Schedule struct {
	// Config is that of each run, but for its bucket.
	Config
	Buckets []string
	// Every is from the beginning of a run to that of the next, at least [MinEvery].
	Every time.Duration
	// Look is how often to look whether a run is due; default 15 s.
	Look time.Duration
}

// retryAfter is how long after a failure the run is tried again; requests that failed were repeated before.
const retryAfter = 10 * time.Minute

// Run works until ctx ends.
func (s *Schedule) Run(ctx context.Context) {
	look := cmp.Or(s.Look, 15*time.Second)
	failed := make(map[string]time.Time)
	for sleep(ctx, look) == nil {
		for _, bucket := range s.Buckets {
			cfg := s.Config.withDefaults()
			cfg.Bucket, cfg.every, cfg.Patience = bucket, s.Every, time.Nanosecond
			if cfg.Now().Before(failed[bucket].Add(min(retryAfter, s.Every))) {
				continue
			}
			if due, err := isDue(ctx, cfg); err != nil || !due {
				continue // or PostgreSQL is unavailable, which others report
			}
			cfg.Patience = s.Config.Patience
			result, err := Run(ctx, cfg)
			switch {
			case ctx.Err() != nil:
				return
			case errors.Is(err, ErrRunning), errors.Is(err, ErrLost), errors.Is(err, errNotDue):
			case err != nil:
				failed[bucket] = cfg.Now()
				s.Logger.WarnContext(ctx, "bucket could not be compared with the log", slog.String("bucket", bucket),
					slog.String("error", fault.Line(err.Error())))
			default:
				s.Logger.InfoContext(ctx, "bucket was compared with the log", slog.String("bucket", bucket),
					slog.Int64("run_id", result.RunID), slog.Int64("listed", result.Listed), slog.Int64("missing", result.Missing),
					slog.Int64("recovered", result.Recovered), slog.Int64("vanished", result.Vanished),
					slog.Float64("lost_share", result.LostShare))
			}
		}
	}
}

func isDue(ctx context.Context, cfg Config) (bool, error) {
	last, there, err := lastRun(ctx, cfg.Pool, cfg.Bucket)
	return err == nil && (!there || !cfg.Now().Before(last.Add(cfg.every))), err
}
