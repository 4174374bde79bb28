package receiver

import (
	"context"
	"fmt"

	"upcall/internal/api"
	"upcall/internal/confirm"
	"upcall/internal/eventstore"
	"upcall/internal/feed"
	"upcall/internal/fold"
	"upcall/internal/rollup"
	"upcall/internal/spool"
	"upcall/internal/story"
	"upcall/internal/stream"
	"upcall/internal/vitals"
)

// newAPI returns the API on the admin listener.
func (cfg Config) newAPI(log *feed.Log, janitor *eventstore.Janitor, deliveries *hookWorker, rollups *rollup.Worker,
	folds *fold.Worker, confirming *confirm.Worker, queue fallback, signs *vitals.Sampler, captures captures,
	ready func(context.Context) (string, error)) (*api.Server, error) {
	// What comes first in the path of an upload is looked at first: what leaves it meanwhile is found
	// further on.
	var behind []func(context.Context) ([]string, error)
	if queue != nil {
		behind = append(behind, func(context.Context) ([]string, error) {
			if n := queue.Depth(); n > 0 {
				return []string{fmt.Sprintf("%s: %d callbacks", cfg.durable(), n)}, nil
			}
			return nil, nil
		})
	}
	behind = append(behind, folds.Behind)
	if confirming != nil {
		behind = append(behind, confirming.Behind)
	}
	behind = append(behind, deliveries.endpoints.Behind, rollups.Behind)
	stories, err := story.New(story.Config{Pool: janitor.Pool, Endpoints: deliveries.endpoints})
	if err != nil {
		return nil, err
	}
	var waiting api.Fallback
	switch queue := queue.(type) {
	case *spool.Spool:
		waiting = api.OfSpool(queue)
	case *stream.Group:
		waiting = api.OfStream(queue)
	}
	config := api.Config{Log: log, Keys: eventstore.NewRoleKeys(janitor.Pool), Endpoints: deliveries.endpoints, Stories: stories,
		Vitals: signs, Ready: ready, Fallback: waiting, Behind: behind, Logger: cfg.Logger, Now: cfg.Now}
	if captures.examiner != nil {
		config.Captures = captures.examiner
	}
	return api.New(config)
}
