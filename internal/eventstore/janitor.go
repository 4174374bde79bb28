package eventstore

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// cleanEvery is how often a janitor works, and cleanAgain when it retries after a failure.
	cleanEvery, cleanAgain = time.Hour, time.Minute
	// partitionTimeout bounds the making of partitions.
	partitionTimeout = 5 * time.Second
)

// A Janitor makes the partitions that events will need, and drops expired and excess rows.
type Janitor struct {
	Pool          *pgxpool.Pool    // from [Open]
	RetentionDays int              // how long events are kept; 0 keeps them all
	Refusals      *Refusals        // nil if none are kept
	Now           func() time.Time // the clock
	Logger        *slog.Logger
}

// Run works until ctx ends.
func (j *Janitor) Run(ctx context.Context) {
	var work sync.WaitGroup
	work.Go(func() { j.repeat(ctx, "partitions ahead were not made", j.MakePartitions) })
	work.Go(func() { j.repeat(ctx, "expired rows were not dropped", j.dropExpired) })
	work.Wait()
}

func (j *Janitor) repeat(ctx context.Context, failed string, work func(context.Context) error) {
	for {
		next := cleanEvery
		if err := work(ctx); err != nil && ctx.Err() == nil {
			next = cleanAgain
			j.Logger.WarnContext(ctx, failed, slog.Duration("next_try_in", next), slog.String("error", err.Error()))
		}
		if pause(ctx, next) != nil {
			return
		}
	}
}

// MakePartitions makes the partitions of the coming months. The recorder would make a missing
// one, too, but that delays callbacks.
func (j *Janitor) MakePartitions(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, partitionTimeout)
	defer cancel()
	return EnsurePartitions(ctx, j.Pool, j.Now())
}

func (j *Janitor) dropExpired(ctx context.Context) error {
	var errs []error
	if j.Refusals != nil {
		errs = append(errs, j.Refusals.Trim(ctx))
	}
	if j.RetentionDays > 0 {
		dropped, err := DropExpired(ctx, j.Pool, j.Now(), j.RetentionDays)
		if len(dropped.Months) > 0 || dropped.Issued > 0 {
			j.Logger.InfoContext(ctx, "expired events dropped", slog.Any("months", dropped.Months),
				slog.Int("callback_ids", dropped.IDs), slog.Int("issued_uploads", dropped.Issued))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
