package receiver

import (
	"context"
	"time"

	"upcall/internal/confirm"
	"upcall/internal/eventstore"
	"upcall/internal/feed"
	"upcall/internal/oss"
)

// ConfirmConfig configures confirmation.
type ConfirmConfig struct {
	// Mode and Grace are as in confirm.Config.
	Mode  confirm.Mode
	Grace time.Duration
	// OSS is where objects are.
	OSS oss.Config
}

// newConfirm returns what confirms uploads, and the function that closes its connections; nil if that is
// off.
func (cfg Config) newConfirm(ctx context.Context, log *feed.Log) (*confirm.Worker, func(), error) {
	c := cfg.Confirm
	if c == nil {
		return nil, func() {}, nil
	}
	client, err := oss.New(c.OSS)
	if err != nil {
		return nil, nil, err
	}
	pool, err := eventstore.OpenFeed(ctx, cfg.DatabaseURL)
	if err != nil {
		return nil, nil, err
	}
	consumers, err := feed.NewConsumers(feed.ConsumersConfig{Pool: pool})
	if err != nil {
		return nil, nil, err
	}
	settings := confirm.Config{Pool: pool, Log: log, Consumers: consumers, OSS: client, Mode: c.Mode, Grace: c.Grace,
		Logger: cfg.Logger, Now: cfg.Now}
	if cfg.notify().On() {
		settings.Wait = cfg.NotifyGrace // a notification that comes first saves a request
	}
	worker, err := confirm.New(settings)
	return worker, pool.Close, err
}
