package receiver

import (
	"context"

	"upcall/internal/eventstore"
	"upcall/internal/feed"
	"upcall/internal/rollup"
)

// newRollups returns what counts uploads, and the function that closes its connections.
func (cfg Config) newRollups(ctx context.Context, log *feed.Log) (*rollup.Worker, func(), error) {
	// Of its own, so that a long batch does not hold up the reading of the log.
	pool, err := eventstore.OpenFeed(ctx, cfg.DatabaseURL)
	if err != nil {
		return nil, nil, err
	}
	consumers, err := feed.NewConsumers(feed.ConsumersConfig{Pool: pool})
	if err != nil {
		return nil, nil, err
	}
	worker, err := rollup.New(rollup.Config{Pool: pool, Log: log, Consumers: consumers, Logger: cfg.Logger, Now: cfg.Now})
	return worker, pool.Close, err
}
