package hooks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/fault"
	"upcall/internal/webhook"
)

// A Redelivery says what to send again: the dead letters, or else one event, or the events that
// were received from Since until before Until, with what was found about them. They are sent to the
// endpoints whose filters they match.
type Redelivery struct {
	Endpoint string    // id or name; "" is all endpoints
	Event    uuid.UUID // or one finding; uuid.Nil is none
	Since    time.Time // zero is none, as in the next; with Event they bound where to look for it
	Until    time.Time
}

// Redeliver has messages sent again and returns how many. A paused endpoint gets them once it
// is resumed.
func (e *Endpoints) Redeliver(ctx context.Context, r Redelivery) (int, error) {
	if !r.Since.IsZero() && !r.Until.IsZero() && !r.Since.Before(r.Until) {
		return 0, fault.New(ErrFrom, "until", "give a later one", "%s is not after since", r.Until.Format(time.RFC3339))
	}
	endpoints, err := e.selected(ctx, r.Endpoint)
	if err != nil {
		return 0, err
	}
	var count int
	switch {
	case r.Event != uuid.Nil:
		count, err = e.redeliverEvent(ctx, endpoints, r)
	case !r.Since.IsZero() || !r.Until.IsZero():
		count, err = e.redeliverTime(ctx, endpoints, r)
	default:
		count, err = e.redeliverDead(ctx, endpoints)
	}
	if err != nil {
		return count, err
	}
	// So that lanes look for them at once.
	if _, err := eventstore.Exec(ctx, e.config.Pool, "", "UPDATE upcall.hook_changes SET version = version + 1", nil); err != nil {
		return count, fmt.Errorf("redeliver: %w", unavailable(err))
	}
	e.config.Logger.InfoContext(ctx, "messages are sent again", slog.Int("messages", count), slog.String("endpoint", r.Endpoint))
	return count, nil
}

// selected returns the named endpoint, or all.
func (e *Endpoints) selected(ctx context.Context, endpoint string) ([]Endpoint, error) {
	if endpoint == "" {
		return e.List(ctx)
	}
	one, err := e.Get(ctx, endpoint)
	return []Endpoint{one}, err
}

// redeliverDead makes dead letters due. Those that die in the meantime stay.
func (e *Endpoints) redeliverDead(ctx context.Context, endpoints []Endpoint) (int, error) {
	count, now := 0, e.config.Now()
	for _, endpoint := range endpoints {
		for {
			// Each is due a moment after the one before, so that the index has them in order.
			tag, err := eventstore.Exec(ctx, e.config.Pool, "", `
				UPDATE upcall.hook_retries r SET reason = 'redelivery', attempts = 0, due_at = $2::timestamptz + place * interval '1 microsecond'
				FROM (SELECT event_id, $4::bigint - 1 + row_number() OVER (ORDER BY received_at, event_id) AS place FROM (
					SELECT event_id, received_at FROM upcall.hook_retries
					WHERE endpoint_id = $1 AND due_at IS NULL AND failed_at <= $2 ORDER BY failed_at LIMIT $3) AS oldest) AS dead
				WHERE r.endpoint_id = $1 AND r.event_id = dead.event_id AND r.due_at IS NULL`, nil, endpoint.ID, now, stepRows, int64(count))
			if err != nil {
				return count, fmt.Errorf("redeliver dead letters: %w", unavailable(err))
			}
			count += int(tag.RowsAffected())
			if tag.RowsAffected() < stepRows {
				break
			}
		}
	}
	return count, nil
}

func (e *Endpoints) redeliverEvent(ctx context.Context, endpoints []Endpoint, r Redelivery) (int, error) {
	wanted := r.Event
	of, received, err := e.eventOf(ctx, wanted)
	if err != nil {
		return 0, err
	}
	if of != uuid.Nil { // it is a finding
		r.Event, r.Since, r.Until = of, received, received.Add(time.Microsecond)
	}
	found, err := e.findEvent(ctx, r)
	if err != nil {
		return 0, err
	}
	all, err := e.tellings(ctx, []*event.Event{found})
	if err != nil {
		return 0, err
	}
	if of != uuid.Nil {
		all = slices.DeleteFunc(all, func(t telling) bool { return t.id != wanted })
	}
	return e.enqueue(ctx, endpoints, all, 0)
}

// eventOf returns the event that a finding is about; uuid.Nil if there is no such finding.
func (e *Endpoints) eventOf(ctx context.Context, finding uuid.UUID) (id uuid.UUID, received time.Time, err error) {
	const query = "SELECT event_id, event_received_at FROM upcall.findings WHERE id = $1"
	_, err = eventstore.Exec(ctx, e.config.Pool, "", query, func(rows pgx.Rows) error {
		_, err := pgx.ForEachRow(rows, []any{&id, &received}, func() error { return nil })
		return err
	}, finding)
	if err != nil {
		return uuid.Nil, time.Time{}, fmt.Errorf("look for finding: %w", unavailable(err))
	}
	return id, received, nil
}

// A telling is what can be told of an event: that it was recorded, or what was found about it.
type telling struct {
	id    uuid.UUID
	kind  webhook.Kind
	event *event.Event
}

// tellings returns all that can be told of events, which are in the order in which they were received.
func (e *Endpoints) tellings(ctx context.Context, events []*event.Event) ([]telling, error) {
	found := make(map[uuid.UUID][]telling) // by event
	const query = `SELECT id, kind, event_id FROM upcall.findings
		WHERE event_received_at BETWEEN $1 AND $2 ORDER BY event_received_at, event_id, id`
	_, err := eventstore.Exec(ctx, e.config.Pool, "", query, func(rows pgx.Rows) error {
		var t telling
		var of uuid.UUID
		_, err := pgx.ForEachRow(rows, []any{&t.id, (*string)(&t.kind), &of}, func() error { found[of] = append(found[of], t); return nil })
		return err
	}, events[0].ReceivedAt, events[len(events)-1].ReceivedAt)
	if err != nil {
		return nil, fmt.Errorf("look for findings: %w", unavailable(err))
	}
	var all []telling
	for _, one := range events {
		all = append(all, telling{one.ID, webhook.Recorded, one})
		for _, t := range found[one.ID] {
			t.event = one
			all = append(all, t)
		}
	}
	return all, nil
}

// errStop ends a reading early.
var errStop = errors.New("stop")

// findEvent looks for an event by its id alone, for which there is no index: a day at a time from the
// newest on, by the index on the time of receipt.
func (e *Endpoints) findEvent(ctx context.Context, r Redelivery) (*event.Event, error) {
	const day = 24 * time.Hour
	var oldest *time.Time
	var known time.Time
	_, err := eventstore.Exec(ctx, e.config.Pool, "", `
		SELECT min(received_at), coalesce((SELECT max(received_at) FROM upcall.hook_retries WHERE event_id = $1), 'epoch')
		FROM upcall.upload_events`, func(rows pgx.Rows) error {
		_, err := pgx.ForEachRow(rows, []any{&oldest, &known}, func() error { return nil })
		return err
	}, r.Event)
	if err != nil {
		return nil, fmt.Errorf("look for event: %w", unavailable(err))
	}
	missing := fault.New(ErrNotFound, "event", "", "there is no event %s in that time, or it was dropped", r.Event)
	if oldest == nil {
		return nil, missing
	}
	first, until := *oldest, e.config.Now().Add(day)
	if r.Since.After(first) {
		first = r.Since
	}
	if !r.Until.IsZero() {
		until = r.Until
	}
	if known.Unix() != 0 && !known.Before(first) && known.Before(until) { // it has failed before
		first, until = known, known.Add(time.Microsecond)
	}
	for ; until.After(first); until = until.Add(-day) {
		since := until.Add(-day)
		if since.Before(first) {
			since = first
		}
		var found *event.Event
		err := e.readEvents(ctx, "id = $3", func(one *event.Event) error { found = one; return errStop }, since, until, r.Event)
		switch {
		case found != nil:
			return found, nil
		case err != nil:
			return nil, err
		}
	}
	return nil, missing
}

// readEvents visits the events that were received in a time and meet a condition, in order.
func (e *Endpoints) readEvents(ctx context.Context, condition string, visit func(*event.Event) error, args ...any) error {
	var stopped error
	_, err := eventstore.Exec(ctx, e.config.Pool, "", "SELECT "+eventstore.EventColumns()+` FROM upcall.upload_events
		WHERE received_at >= $1 AND received_at < $2 AND `+condition, func(rows pgx.Rows) error {
		for rows.Next() && stopped == nil {
			one := new(event.Event)
			if err := rows.Scan(eventstore.EventFields(one)...); err != nil {
				return err
			}
			stopped = visit(one)
		}
		return rows.Err()
	}, args...)
	if err != nil {
		return fmt.Errorf("read events: %w", unavailable(err))
	}
	return stopped
}

func (e *Endpoints) redeliverTime(ctx context.Context, endpoints []Endpoint, r Redelivery) (int, error) {
	count, after, id := 0, r.Since, uuid.Nil
	if r.Until.IsZero() {
		r.Until = e.config.Now()
	}
	if after.IsZero() {
		after = time.Unix(0, 0)
	}
	for {
		var page []*event.Event
		err := e.readEvents(ctx, "(received_at, id) > ($1, $3) ORDER BY received_at, id LIMIT $4",
			func(one *event.Event) error { page = append(page, one); return nil }, after, r.Until, id, stepRows)
		if err != nil || len(page) == 0 {
			return count, err
		}
		last := page[len(page)-1]
		after, id = last.ReceivedAt, last.ID
		all, err := e.tellings(ctx, page)
		if err != nil {
			return count, err
		}
		more, err := e.enqueue(ctx, endpoints, all, count)
		if count += more; err != nil {
			return count, err
		}
	}
}

// enqueue has messages sent to the endpoints that they match. It returns how many deliveries that
// makes; so many were enqueued before.
func (e *Endpoints) enqueue(ctx context.Context, endpoints []Endpoint, all []telling, before int) (int, error) {
	count, now := 0, e.config.Now()
	for i := range endpoints {
		filter := endpoints[i].Filter.matcher()
		var ids []uuid.UUID
		var times []time.Time
		var kinds []string
		for _, t := range all {
			if filter.matches(t.kind, t.event) {
				ids, times, kinds = append(ids, t.id), append(times, t.event.ReceivedAt), append(kinds, string(t.kind))
			}
		}
		if len(ids) == 0 {
			continue
		}
		_, err := eventstore.Exec(ctx, e.config.Pool, "", `
			INSERT INTO upcall.hook_retries (endpoint_id, event_id, received_at, kind, reason, attempts, due_at)
			SELECT $1, id, received_at, kind, 'redelivery', 0, $4::timestamptz + ($5::bigint + place - 1) * interval '1 microsecond'
			FROM unnest($2::uuid[], $3::timestamptz[], $6::text[]) WITH ORDINALITY AS messages (id, received_at, kind, place)
			ON CONFLICT (endpoint_id, event_id) DO UPDATE SET reason = 'redelivery', attempts = 0, due_at = excluded.due_at`,
			nil, endpoints[i].ID, ids, times, now, int64(before+count), kinds)
		if err != nil {
			return count, fmt.Errorf("redeliver: %w", unavailable(err))
		}
		count += len(ids)
	}
	return count, nil
}
