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
	// cleanEvery is how often a janitor looks at the tables, and cleanAgain when it tries again
	// after it could not.
	cleanEvery, cleanAgain = time.Hour, time.Minute
	// partitionTimeout bounds the making of partitions.
	partitionTimeout = 5 * time.Second
)

// A Janitor makes the partitions that events will need, and drops what is too old or too
// much.
type Janitor struct {
	Pool          *pgxpool.Pool    // from [Open]
	RetentionDays int              // how long events are kept; 0 keeps all
	Refusals      *Refusals        // nil: none are kept
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

// MakePartitions makes the partitions of the coming months, so that no callback meets a
// month that has none. (The recorder makes one that is missing all the same; that costs the
// callbacks of the moment some time.)
func (j *Janitor) MakePartitions(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, partitionTimeout)
	defer cancel()
	return EnsurePartitions(ctx, j.Pool, j.Now())
}

func (j *Janitor) dropExpired(ctx context.Context) error {
	var errs []error
	if j.Refusals != nil {
		_, err := j.Refusals.Trim(ctx)
		errs = append(errs, err)
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
