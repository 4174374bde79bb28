package eventstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
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
	Keeper        Keeper           // takes them before they are dropped; nil if none does
	Refusals      *Refusals        // nil if none are kept
	Now           func() time.Time // the clock
	Logger        *slog.Logger

	last atomic.Pointer[time.Time] // the last month that has a partition, without a gap from now on
	held atomic.Pointer[time.Time] // since when expired events cannot be handed over
	kept atomic.Int64              // events that were handed over
}

// Collectors returns what /metrics shows of the partitions and of what is handed over.
func (j *Janitor) Collectors() []prometheus.Collector {
	return []prometheus.Collector{prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "upcall_retention_held_back_seconds",
		Help: "For how long this receiver could not hand over expired events, which are not dropped therefore; 0 if it could.",
	}, func() float64 {
		since := j.held.Load()
		if since == nil {
			return 0
		}
		return max(0, j.Now().Sub(*since).Seconds())
	}), prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "upcall_retention_handed_over_events_total",
		Help: "Events that this receiver has handed over, read back, and dropped.",
	}, func() float64 { return float64(j.kept.Load()) }), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "upcall_partitions_ahead_months",
		Help: "Months after this one that have a partition; -1 if this month has none; NaN while it is not known.",
	}, func() float64 {
		last := j.last.Load()
		if last == nil {
			return math.NaN()
		}
		now := monthOf(j.Now())
		return max(-1, float64(12*(last.Year()-now.Year())+int(last.Month()-now.Month())))
	})}
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
			// No trying fixes a mistake, and to hand over a month means to read much of it each time.
			if !errors.Is(err, ErrMistake) && !errors.Is(err, ErrHeldBack) {
				next = cleanAgain
			}
			j.Logger.WarnContext(ctx, failed, slog.Int64("next_try_in_ms", next.Milliseconds()), slog.String("error", err.Error()))
		}
		if pause(ctx, next) != nil {
			return
		}
	}
}

// Once does once what Run does.
func (j *Janitor) Once(ctx context.Context) error {
	return errors.Join(j.MakePartitions(ctx), j.dropExpired(ctx))
}

// MakePartitions makes the partitions of the coming months. The recorder would make a missing
// one, too, but that delays callbacks. The error wraps [ErrMistake] if the role may not.
func (j *Janitor) MakePartitions(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, partitionTimeout)
	defer cancel()
	err := EnsurePartitions(ctx, j.Pool, j.Now())
	_, unknown := j.MonthsAhead(ctx)
	return cmp.Or(err, unknown)
}

// MonthsAhead is [MonthsAhead] by the janitor's clock, and keeps the metric true.
func (j *Janitor) MonthsAhead(ctx context.Context) (int, error) {
	now := j.Now()
	ahead, err := MonthsAhead(ctx, j.Pool, now)
	if err == nil {
		j.last.Store(new(monthOf(now).AddDate(0, ahead, 0)))
	}
	return ahead, err
}

func (j *Janitor) dropExpired(ctx context.Context) error {
	var errs []error
	if j.Refusals != nil {
		errs = append(errs, j.Refusals.Trim(ctx))
	}
	if j.RetentionDays > 0 {
		errs = append(errs, j.dropMonth(ctx))
	}
	return errors.Join(errs...)
}

// dropMonth drops the oldest month that has expired. It looks whether one could be handed over even if none has, so
// that what is wrong shows before a month waits for it.
func (j *Janitor) dropMonth(ctx context.Context) error {
	if j.Keeper != nil {
		if err := j.Keeper.Ready(ctx); err != nil {
			j.hold(true)
			return fmt.Errorf("%w: %w", ErrHeldBack, err)
		}
	}
	dropped, err := DropKept(ctx, j.Pool, j.Now(), j.RetentionDays, j.Keeper)
	j.kept.Add(dropped.Kept)
	if held := errors.Is(err, ErrHeldBack); held || err == nil {
		j.hold(held)
	}
	if len(dropped.Months) > 0 || dropped.Issued > 0 {
		j.Logger.InfoContext(ctx, "expired events dropped", slog.Any("months", dropped.Months),
			slog.Int("callback_ids", dropped.IDs), slog.Int("issued_uploads", dropped.Issued), slog.Int64("handed_over", dropped.Kept))
	}
	return err
}

// hold notes whether events could not be handed over.
func (j *Janitor) hold(back bool) {
	if !back {
		j.held.Store(nil)
		return
	}
	now := j.Now()
	j.held.CompareAndSwap(nil, &now)
}
