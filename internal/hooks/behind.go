package hooks

import (
	"context"
	"fmt"

	"upcall/internal/feed"
)

// Behind returns a line for each endpoint that has deliveries to come: it has not read all of the
// log, or retries wait. Those that are paused or disabled do not count, because nothing would
// change while they are.
func (e *Endpoints) Behind(ctx context.Context) ([]string, error) {
	// Cursors before retries: a lane moves its cursor past a failed delivery in the transaction that
	// writes the row of its retry, so that what is not before the cursor is among the rows.
	consumers, err := feed.ListConsumers(ctx, e.config.Pool)
	if err != nil {
		return nil, fmt.Errorf("look where endpoints are: %w", err)
	}
	all, err := e.List(ctx)
	if err != nil {
		return nil, err
	}
	cursors := make(map[string]feed.Cursor)
	for _, c := range consumers {
		cursors[c.Name] = c.Cursor
	}
	var behind []string
	for i := range all {
		if all[i].State != Active && all[i].State != Failing {
			continue
		}
		lag, err := e.config.Log.LagOfAll(ctx, cursors[all[i].consumer()])
		if err != nil {
			return nil, fmt.Errorf("look where endpoints are: %w", err)
		}
		if lag.Events > 0 || all[i].Waiting > 0 {
			behind = append(behind, fmt.Sprintf("endpoint %s: %d events, %d retries", all[i].Name, lag.Events, all[i].Waiting))
		}
	}
	return behind, nil
}
