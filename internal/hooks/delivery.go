package hooks

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype/zeronull"

	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/feed"
	"upcall/internal/webhook"
)

// A Message is an entry of the log that endpoints may be told of.
type Message struct {
	ID    uuid.UUID // of the event, or of the finding about it
	Kind  webhook.Kind
	XID   uint64    // its recorded_xid; 0 if it has none
	At    time.Time // the event received, or the finding found
	Event *event.Event
}

// What became of a delivery.
const (
	DeliveryDone    = "delivered"
	DeliveryWaiting = "waiting" // it failed, and is tried again
	DeliveryDead    = "dead"    // it failed for the last time
	DeliveryPending = "pending" // it was not tried yet
	DeliveryUnknown = "unknown" // the place of the endpoint in the log cannot be compared
)

// A Delivery is what became of a message at an endpoint.
type Delivery struct {
	EndpointID uuid.UUID    `json:"endpoint_id"`
	Endpoint   string       `json:"endpoint"` // its name
	MessageID  uuid.UUID    `json:"message_id"`
	Kind       webhook.Kind `json:"kind"`
	State      string       `json:"state"`
	DueAt      *time.Time   `json:"due_at"`   // of the next attempt, if it is waiting
	Problem    *string      `json:"problem"`  // of the last attempt, if it is waiting or dead
	Attempts   []Attempt    `json:"attempts"` // those that are kept, the latest first
}

// Deliveries returns what became of messages at the endpoints that were to be told of them, by message
// and name. There is a row for a delivery only while it has failed. So what else the filter
// matches, as it is now, and is between where the endpoint began and where it is in the log was delivered.
func (e *Endpoints) Deliveries(ctx context.Context, messages []Message) ([]Delivery, error) {
	if len(messages) == 0 {
		return []Delivery{}, nil
	}
	// Cursors before retries, as in Behind.
	consumers, err := feed.ListConsumers(ctx, e.config.Pool)
	if err != nil {
		return nil, fmt.Errorf("look where endpoints are: %w", err)
	}
	all, err := loadEndpoints(ctx, e.config.Pool, "state <> 'removing'")
	if err != nil {
		return nil, err
	}
	ids := make([]uuid.UUID, len(messages))
	for i := range messages {
		ids[i] = messages[i].ID
	}
	failed, err := e.failedOf(ctx, ids)
	if err != nil {
		return nil, err
	}
	attempts, err := e.listAttempts(ctx, "event_id = ANY ($1) AND at > $2 ORDER BY at DESC LIMIT $3",
		ids, e.config.Now().Add(-keepAttempts), maxListed)
	if err != nil {
		return nil, err
	}
	deliveries := []Delivery{}
	for i := range all {
		t := &teller{Endpoint: &all[i], filter: all[i].Filter.matcher()}
		e.locate(ctx, t, consumers)
		for _, m := range messages {
			d := Delivery{EndpointID: t.ID, Endpoint: t.Name, MessageID: m.ID, Kind: m.Kind, Attempts: []Attempt{}}
			for _, a := range attempts {
				if a.EndpointID == t.ID && a.EventID == m.ID {
					d.Attempts = append(d.Attempts, a)
				}
			}
			if row, ok := failed[[2]uuid.UUID{t.ID, m.ID}]; ok {
				d.State, d.DueAt, d.Problem = row.State, row.DueAt, row.Problem
			} else if d.State = t.state(m, len(d.Attempts) > 0); d.State == "" {
				continue
			}
			deliveries = append(deliveries, d)
		}
	}
	place := make(map[uuid.UUID]int)
	for i, m := range messages {
		place[m.ID] = i
	}
	slices.SortStableFunc(deliveries, func(a, b Delivery) int { return cmp.Compare(place[a.MessageID], place[b.MessageID]) })
	return deliveries, nil
}

// A teller is an endpoint and its place in the log.
type teller struct {
	*Endpoint
	filter *matcher
	begins feed.Passed // what came before it; nil if that is not known
	until  feed.Passed // what it has read; nil if that is not known
}

// locate looks where an endpoint began and where it is.
func (e *Endpoints) locate(ctx context.Context, t *teller, consumers []feed.Consumer) {
	i := slices.IndexFunc(consumers, func(c feed.Consumer) bool { return c.Name == t.consumer() })
	if e.config.Log == nil || i < 0 {
		return
	}
	// What cannot be compared is said of the delivery; it is no reason to tell nothing at all.
	t.until, _ = e.config.Log.Passed(ctx, consumers[i].Cursor)
	if t.Endpoint.begins != (feed.Cursor{}) {
		t.begins, _ = e.config.Log.Passed(ctx, t.Endpoint.begins)
	}
}

// state returns what became of a message of which there is no row: "" if it is none of the endpoint's.
func (t *teller) state(m Message, tried bool) string {
	if tried { // whatever the filter is now
		return DeliveryDone
	}
	if !t.filter.matches(m.Kind, m.Event) || m.At.Before(t.received) {
		return ""
	}
	switch {
	case t.begins != nil && t.begins(m.XID, m.At, m.ID), t.begins == nil && m.At.Before(t.CreatedAt):
		return ""
	case t.until == nil:
		return DeliveryUnknown
	case t.until(m.XID, m.At, m.ID):
		return DeliveryDone
	}
	return DeliveryPending
}

// failedOf returns the rows of messages that failed, by endpoint and message.
func (e *Endpoints) failedOf(ctx context.Context, ids []uuid.UUID) (map[[2]uuid.UUID]Delivery, error) {
	failed := make(map[[2]uuid.UUID]Delivery)
	_, err := eventstore.Exec(ctx, e.config.Pool, "", `
		SELECT endpoint_id, event_id, due_at, problem FROM upcall.hook_retries WHERE event_id = ANY ($1)`,
		func(rows pgx.Rows) error {
			var key [2]uuid.UUID
			var due *time.Time
			var problem string
			_, err := pgx.ForEachRow(rows, []any{&key[0], &key[1], &due, (*zeronull.Text)(&problem)}, func() error {
				d := Delivery{State: DeliveryDead, Problem: text(problem)}
				if due != nil {
					d.State, d.DueAt = DeliveryWaiting, moment(*due)
				}
				failed[key] = d
				return nil
			})
			return err
		}, ids)
	if err != nil {
		return nil, fmt.Errorf("look for failed deliveries: %w", unavailable(err))
	}
	return failed, nil
}
