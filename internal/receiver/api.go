package receiver

import (
	"context"
	"fmt"

	"upcall/internal/api"
	"upcall/internal/eventstore"
	"upcall/internal/feed"
	"upcall/internal/rollup"
	"upcall/internal/spool"
)

// newAPI returns the API on the admin listener.
func (cfg Config) newAPI(log *feed.Log, janitor *eventstore.Janitor, deliveries *hookWorker, rollups *rollup.Worker,
	queue *spool.Spool) (*api.Server, error) {
	behind := []func(context.Context) ([]string, error){deliveries.endpoints.Behind, rollups.Behind}
	if queue != nil {
		behind = append(behind, func(context.Context) ([]string, error) {
			if n := queue.Depth(); n > 0 {
				return []string{fmt.Sprintf("spool: %d callbacks", n)}, nil
			}
			return nil, nil
		})
	}
	return api.New(api.Config{Log: log, Keys: eventstore.NewRoleKeys(janitor.Pool), Endpoints: deliveries.endpoints, Behind: behind,
		Logger: cfg.Logger, Now: cfg.Now})
}
