package hooks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype/zeronull"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/feed"
	"upcall/internal/webhook"
	"upcall/migrations"
)

// uniqueViolation is an SQLSTATE.
const uniqueViolation = "23505"

func isUnique(err error) bool { return migrations.ServerError(err).Code == uniqueViolation }

// unavailable wraps what is neither one of our sentinels nor the end of a context.
func unavailable(err error) error {
	if err == nil || errors.Is(err, event.ErrUnavailable) || errors.Is(err, context.Canceled) {
		return err
	}
	return eventstore.Unavailable(err)
}

// insertEndpoint writes a new endpoint and sets its version.
func insertEndpoint(ctx context.Context, tx pgx.Tx, e *Endpoint) error {
	filter, headers, err := e.encode()
	if err != nil {
		return err
	}
	return tx.QueryRow(ctx, `
		WITH changed AS (UPDATE upcall.hook_changes SET version = version + 1 RETURNING version)
		INSERT INTO upcall.hook_endpoints (id, name, url, filter, headers, max_in_flight, received_since, secret, state,
			created_at, changed_at, begins, version)
		SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10, $11, version FROM changed RETURNING version`,
		e.ID, e.Name, e.URL, filter, headers, e.MaxInFlight, moment(e.received), e.secret.Reveal(), string(e.State), e.CreatedAt,
		text(e.begins.String())).Scan(&e.version)
}

// updateEndpoint writes what operators change and sets the new version; false if the endpoint
// has another version than e. Why it is failing, and when it is probed, is its lane's business.
func updateEndpoint(ctx context.Context, pool *pgxpool.Pool, e *Endpoint) (bool, error) {
	filter, headers, err := e.encode()
	if err != nil {
		return false, err
	}
	previous := ""
	if !e.previous.IsZero() {
		previous = e.previous.Reveal()
	}
	tag, err := eventstore.Exec(ctx, pool, "", `
		WITH changed AS (UPDATE upcall.hook_changes SET version = version + 1 RETURNING version)
		UPDATE upcall.hook_endpoints e SET name = $3, url = $4, filter = $5, headers = $6, max_in_flight = $7, secret = $8,
			previous_secret = $9, previous_until = $10, state = $11, changed_at = $12, version = changed.version,
			reason = CASE WHEN $13 THEN NULL ELSE reason END, failing_since = CASE WHEN $13 THEN NULL ELSE failing_since END,
			probe_at = CASE WHEN $13 THEN NULL ELSE probe_at END, probe_pause = CASE WHEN $13 THEN NULL ELSE probe_pause END
		FROM changed WHERE e.id = $1 AND e.version = $2 RETURNING e.version`,
		func(rows pgx.Rows) error {
			_, err := pgx.ForEachRow(rows, []any{&e.version}, func() error { return nil })
			return err
		},
		e.ID, e.version, e.Name, e.URL, filter, headers, e.MaxInFlight, e.secret.Reveal(), text(previous), moment(e.RotatedUntil),
		string(e.stored()), e.ChangedAt, e.resumed)
	return tag.RowsAffected() == 1, err
}

func (e *Endpoint) encode() (filter, headers []byte, err error) {
	filter, err = json.Marshal(e.Filter)
	if err == nil {
		headers, err = json.Marshal(e.Headers)
	}
	return filter, headers, err
}

// stored returns the state as the table has it.
func (e *Endpoint) stored() State {
	if e.State == Failing {
		return Active
	}
	return e.State
}

func pause(d time.Duration) *time.Duration {
	if d == 0 {
		return nil
	}
	return &d
}

// loadEndpoints returns the endpoints that meet a condition, by name.
func loadEndpoints(ctx context.Context, pool *pgxpool.Pool, condition string, args ...any) ([]Endpoint, error) {
	var all []Endpoint
	_, err := eventstore.Exec(ctx, pool, "", `
		SELECT id, name, url, filter, headers, max_in_flight, received_since, secret, previous_secret, previous_until, state, reason,
			failing_since, probe_at, coalesce(probe_pause, '0'), created_at, changed_at, version,
			coalesce(begins, '')
		FROM upcall.hook_endpoints WHERE `+condition+` ORDER BY name COLLATE "C"`, func(rows pgx.Rows) (err error) {
		all, err = pgx.CollectRows(rows, scanEndpoint)
		return err
	}, args...)
	if err != nil {
		return nil, fmt.Errorf("read endpoints: %w", unavailable(err))
	}
	return all, nil
}

// loadDue returns when the first retry of each endpoint is due, of those that have any.
func loadDue(ctx context.Context, pool *pgxpool.Pool) (map[uuid.UUID]time.Time, error) {
	due := make(map[uuid.UUID]time.Time)
	_, err := eventstore.Exec(ctx, pool, "upcall_hook_due", `
		SELECT e.id, first.due_at FROM upcall.hook_endpoints e CROSS JOIN LATERAL (
			SELECT min(due_at) AS due_at FROM upcall.hook_retries r WHERE r.endpoint_id = e.id AND r.due_at IS NOT NULL
		) AS first WHERE first.due_at IS NOT NULL`, func(rows pgx.Rows) error {
		var id uuid.UUID
		var at time.Time
		_, err := pgx.ForEachRow(rows, []any{&id, &at}, func() error { due[id] = at; return nil })
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read when retries are due: %w", unavailable(err))
	}
	return due, nil
}

func scanEndpoint(row pgx.CollectableRow) (Endpoint, error) {
	var e Endpoint
	var filter, headers []byte
	var secret, previous, begins string
	err := row.Scan(&e.ID, &e.Name, &e.URL, &filter, &headers, &e.MaxInFlight, (*zeronull.Timestamptz)(&e.received), &secret,
		(*zeronull.Text)(&previous), (*zeronull.Timestamptz)(&e.RotatedUntil), (*string)(&e.State), (*zeronull.Text)(&e.Reason),
		(*zeronull.Timestamptz)(&e.FailingSince), (*zeronull.Timestamptz)(&e.ProbeAt), &e.pause, &e.CreatedAt, &e.ChangedAt, &e.version,
		&begins)
	if err == nil {
		err = json.Unmarshal(filter, &e.Filter)
	}
	if err == nil {
		err = json.Unmarshal(headers, &e.Headers)
	}
	if err == nil {
		e.secret, err = webhook.ParseSecret(secret)
	}
	if err == nil && previous != "" {
		e.previous, err = webhook.ParseSecret(previous)
	}
	if err == nil && begins != "" {
		e.begins, err = feed.ParseCursor(begins)
	}
	if e.Settings = e.Settings.withDefaults(); e.State == Active && !e.FailingSince.IsZero() {
		e.State = Failing
	}
	return e, err
}
