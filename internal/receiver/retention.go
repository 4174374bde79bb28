package receiver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"upcall/internal/eventstore"
)

const (
	// expireEvery is how often a running receiver looks for what is too old or too much.
	expireEvery = time.Hour
	// expireAgain is when it goes on after it could not.
	expireAgain = time.Minute
	// maxRetention is in days. More is a mistake, and near what a calendar can hold.
	maxRetention = 36_500
)

// ParseRetention reads a number of days, as "400d". "" is 0: events are kept.
func ParseRetention(s string) (days int, err error) {
	if s == "" {
		return 0, nil
	}
	digits, ok := strings.CutSuffix(s, "d")
	days, err = strconv.Atoi(digits)
	switch {
	case err != nil || digits[0] < '0' || digits[0] > '9' || days == 0:
		return 0, fmt.Errorf("%q is not a number of days: write 400d, or leave it out to keep all events", s)
	case !ok:
		return 0, fmt.Errorf("%q has no unit: write %sd (minimum %dd)", s, s, eventstore.MinRetention)
	}
	if err := checkRetention(days); err != nil {
		return 0, err
	}
	return days, nil
}

func checkRetention(days int) error {
	if days != 0 && (days < eventstore.MinRetention || days > maxRetention) {
		return fmt.Errorf("a retention of %d days is not between %d, for which callbacks are known again, and %d",
			days, eventstore.MinRetention, maxRetention)
	}
	return nil
}

// An expiry drops what is too old.
type expiry func(context.Context) (eventstore.Dropped, error)

// expire drops what is too old or too much, now and every hour, until ctx ends.
func (cfg Config) expire(ctx context.Context, drop expiry, refusals *eventstore.Refusals) {
	for {
		next := expireEvery
		if err := cfg.expireOnce(ctx, drop, refusals); err != nil && ctx.Err() == nil {
			next = expireAgain
			cfg.Logger.WarnContext(ctx, "expired rows were not dropped", slog.Duration("next_try_in", next), slog.String("error", err.Error()))
		}
		if !sleep(ctx, next) {
			return
		}
	}
}

func (cfg Config) expireOnce(ctx context.Context, drop expiry, refusals *eventstore.Refusals) error {
	var errs []error
	if refusals != nil {
		_, err := refusals.Trim(ctx)
		errs = append(errs, err)
	}
	if cfg.RetentionDays > 0 {
		dropped, err := drop(ctx)
		if len(dropped.Months) > 0 || dropped.Issued > 0 {
			cfg.Logger.InfoContext(ctx, "expired events dropped", slog.Any("months", dropped.Months),
				slog.Int("callback_ids", dropped.IDs), slog.Int("issued_uploads", dropped.Issued))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
