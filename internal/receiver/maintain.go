package receiver

import (
	"cmp"
	"context"

	"upcall/internal/eventstore"
	"upcall/internal/hooks"
	"upcall/migrations"
)

// Maintain makes the partitions of the coming months and drops what has expired, once, with
// the role of DatabaseURL, which must own the tables. It returns how many months after this
// one have a partition.
func Maintain(ctx context.Context, cfg Config) (monthsAhead int, err error) {
	janitor, err := cfg.openJanitor(ctx)
	if err != nil {
		return 0, err
	}
	defer janitor.Pool.Close()
	if err = migrations.Check(ctx, janitor.Pool); err == nil {
		err = janitor.Once(ctx)
	}
	if err == nil {
		err = hooks.Keep(ctx, janitor.Pool, cfg.Now())
	}
	if err == nil {
		monthsAhead, err = janitor.MonthsAhead(ctx)
	}
	return monthsAhead, cmp.Or(eventstore.Mistake(err), err)
}

// openJanitor opens the database for ordinary statements.
func (cfg Config) openJanitor(ctx context.Context) (*eventstore.Janitor, error) {
	pool, err := eventstore.Open(ctx, cfg.DatabaseURL)
	if err != nil {
		return nil, err
	}
	j := &eventstore.Janitor{Pool: pool, RetentionDays: cfg.RetentionDays, Keeper: cfg.Keeper, Now: cfg.Now, Logger: cfg.Logger}
	if cfg.MaxRefusals < 0 {
		return j, nil
	}
	j.Refusals, err = eventstore.NewRefusals(pool, cmp.Or(cfg.MaxRefusals, eventstore.DefaultMaxRefusals))
	return j, err
}
