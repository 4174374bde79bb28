package receiver

import (
	"context"
	"log/slog"
	"time"

	"upcall/internal/eventstore"
	"upcall/internal/feed"
	"upcall/internal/hooks"
)

// declareTimeout bounds how long the start waits for the endpoints of a file, and declareAgain
// is the pause before the next try.
const declareTimeout, declareAgain = 5 * time.Second, 5 * time.Second

// HooksConfig configures hooks.
type HooksConfig struct {
	Rules hooks.Rules
	// Schedule is as in hooks.PumpConfig.
	Schedule hooks.Schedule
	// Declared are the endpoints of a file, made or changed at the start.
	Declared []hooks.Declared
	// Redeclare takes the endpoints of a file that has changed. Default none.
	Redeclare <-chan []hooks.Declared
}

// A hookWorker sends deliveries.
type hookWorker struct {
	pump      *hooks.Pump
	consumers *feed.Consumers
	endpoints *hooks.Endpoints
	declared  []hooks.Declared
	redeclare <-chan []hooks.Declared
	logger    *slog.Logger
	close     func()
}

// newHooks returns what delivers and what operators do.
func (cfg Config) newHooks(ctx context.Context, log *feed.Log, janitor *eventstore.Janitor) (*hookWorker, error) {
	// Of their own, so that commits of many endpoints do not hold up the reading of the log.
	leases, err := eventstore.OpenFeed(ctx, cfg.DatabaseURL)
	if err != nil {
		return nil, err
	}
	pool := janitor.Pool
	consumers, err := feed.NewConsumers(feed.ConsumersConfig{Pool: leases})
	if err != nil {
		return nil, err
	}
	pump, err := hooks.NewPump(hooks.PumpConfig{
		Pool: pool, Log: log, Consumers: consumers, Rules: cfg.Hooks.Rules, Schedule: cfg.Hooks.Schedule, Logger: cfg.Logger, Now: cfg.Now})
	if err != nil {
		return nil, err
	}
	endpoints, err := hooks.NewEndpoints(hooks.Config{Pool: pool, Log: log, Rules: cfg.Hooks.Rules, Logger: cfg.Logger, Now: cfg.Now})
	if err != nil {
		return nil, err
	}
	return &hookWorker{pump, consumers, endpoints, cfg.Hooks.Declared, cfg.Hooks.Redeclare, cfg.Logger, leases.Close}, nil
}

// declare makes the endpoints of the file, so that they are told of the first callback. What
// fails is tried again by run.
func (h *hookWorker) declare(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, declareTimeout)
	defer cancel()
	if err := h.endpoints.Declare(ctx, h.declared); err != nil {
		h.logger.WarnContext(ctx, "endpoints of the file were not all made", slog.String("error", err.Error()))
		return
	}
	h.declared = nil
}

// run delivers until ctx ends.
func (h *hookWorker) run(ctx context.Context) {
	leasing, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() { defer close(ended); h.consumers.Run(leasing) }()
	defer func() { stop(); <-ended }()
	declared := make(chan struct{})
	go func() {
		defer close(declared)
		for {
			var again <-chan time.Time
			if len(h.declared) > 0 {
				again = time.After(declareAgain)
			}
			select {
			case <-again:
			case h.declared = <-h.redeclare:
				h.logger.InfoContext(ctx, "hooks file reloaded", slog.Int("endpoints", len(h.declared)))
			case <-ctx.Done():
				return
			}
			h.declare(ctx)
		}
	}()
	h.pump.Run(ctx)
	<-declared
}
