package hooks

import (
	"context"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype/zeronull"

	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/feed"
)

// loadEvents reads the events and the findings of retries, and returns when a synchronous standby has them:
// a redelivery may be of an event whose own commit was interrupted while it waited for that. Those that were
// dropped stay nil.
func (l *lane) loadEvents(ctx context.Context, due []*delivery) error {
	c := retryColumns{}
	byID := make(map[uuid.UUID]*delivery, len(due))
	for _, d := range due {
		c.ids, c.received, c.kinds = append(c.ids, d.id), append(c.received, d.received), append(c.kinds, string(d.kind))
		byID[d.id] = d
	}
	// OFFSET 0 has PostgreSQL look up each by its key, whatever the statistics say.
	_, err := eventstore.Exec(ctx, l.pump.config.Pool, "", `
		SELECT (SELECT `+eventstore.ReadBarrier+`), wanted.id, about.found, about.found_at, entry.*
		FROM unnest($1::uuid[], $2::timestamptz[], $3::text[]) AS wanted (id, at, kind)
		LEFT JOIN LATERAL (SELECT event_id, found, found_at FROM upcall.findings f WHERE f.id = wanted.id AND f.kind = wanted.kind OFFSET 0)
			AS about ON wanted.kind <> 'recorded'
		CROSS JOIN LATERAL (
			SELECT `+eventstore.EventColumns()+` FROM upcall.upload_events
			WHERE received_at = wanted.at AND id = CASE wanted.kind WHEN 'recorded' THEN wanted.id ELSE about.event_id END
			OFFSET 0) AS entry`,
		func(rows pgx.Rows) error {
			for rows.Next() {
				var id uuid.UUID
				one, finding := new(event.Event), feed.Finding{}
				fields := []any{nil, &id, (*[]byte)(&finding.Found), (*zeronull.Timestamptz)(&finding.At)}
				if err := rows.Scan(append(fields, eventstore.EventFields(one)...)...); err != nil {
					return err
				}
				d := byID[id]
				if d.event = one; finding.Found != nil {
					finding.ID = id
					d.found = &finding
				}
			}
			return rows.Err()
		}, c.ids, c.received, c.kinds)
	return err
}
