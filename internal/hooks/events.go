package hooks

import (
	"context"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"upcall/internal/event"
	"upcall/internal/eventstore"
)

// loadEvents reads the events of retries. Those that were dropped stay nil.
func (l *lane) loadEvents(ctx context.Context, due []*delivery) error {
	c := retryColumns{}
	byID := make(map[uuid.UUID]*delivery, len(due))
	for _, d := range due {
		c.ids, c.received = append(c.ids, d.id), append(c.received, d.received)
		byID[d.id] = d
	}
	// OFFSET 0 has PostgreSQL look up each by its key, whatever the statistics say.
	_, err := eventstore.Exec(ctx, l.pump.config.Pool, "", `
		SELECT found.* FROM unnest($1::uuid[], $2::timestamptz[]) AS wanted (event_id, at) CROSS JOIN LATERAL (
			SELECT `+eventstore.EventColumns()+` FROM upcall.upload_events
			WHERE received_at = wanted.at AND id = wanted.event_id OFFSET 0) found`, func(rows pgx.Rows) error {
		for rows.Next() {
			one := new(event.Event)
			if err := rows.Scan(eventstore.EventFields(one)...); err != nil {
				return err
			}
			if d := byID[one.ID]; d != nil {
				d.event = one
			}
		}
		return rows.Err()
	}, c.ids, c.received)
	return err
}
