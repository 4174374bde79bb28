package hooks

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype/zeronull"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/callbackspec"
	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/fault"
	"upcall/internal/webhook"
	"upcall/migrations"
)

const (
	// keepAttempts is how long attempts are kept, and keepSuccesses how many of those that
	// succeeded, for each endpoint.
	keepAttempts  = 14 * 24 * time.Hour
	keepSuccesses = 100
	// maxListed is the most rows of one list.
	maxListed = 1000
)

// Test sends a sample and returns what became of it. It works while the endpoint is paused.
func (e *Endpoints) Test(ctx context.Context, endpoint string) (Attempt, error) {
	tested, err := e.Get(ctx, endpoint)
	if err != nil {
		return Attempt{}, err
	}
	message := sampleFor(&tested, e.config.Now())
	body, err := message.Body()
	if err != nil {
		return Attempt{}, err
	}
	sender := newSender(e.config.Rules, e.config.Now, nil)
	defer sender.close()
	o, err := sender.send(ctx, request{
		url: tested.URL, headers: tested.Headers, secrets: tested.secrets(e.config.Now()), id: message.ID.String(), body: body})
	if err != nil {
		return Attempt{}, fmt.Errorf("test endpoint: %w", err)
	}
	attempt := o.attempt(tested.ID, message, time.Time{}, ForTest, 0)
	if err := writeAttempts(ctx, e.config.Pool, []Attempt{attempt}, e.config.Now()); err != nil {
		e.config.Logger.WarnContext(ctx, "attempt was not kept", slog.String("error", err.Error()))
	}
	return attempt, nil
}

// sampleFor returns a message that looks like one that the endpoint asked for. Its type tells
// applications that it is none.
func sampleFor(e *Endpoint, now time.Time) *webhook.Message {
	bucket, key, mimeType := "example-bucket", "upcall-test.txt", "text/plain"
	if len(e.Buckets) > 0 {
		bucket = e.Buckets[0]
	}
	if len(e.KeyPrefixes) > 0 {
		key = e.KeyPrefixes[0] + key
	}
	vars := map[string]json.RawMessage{}
	for name, value := range e.Vars {
		vars[name] = callbackspec.AppendQuoted(nil, value)
	}
	one := &event.Event{ID: uuid.New(), ReceivedAt: now, Callback: callbackspec.Callback{
		Bucket: bucket, Object: key, MimeType: mimeType, Size: new(int64(4)), ETag: "098F6BCD4621D373CADE4E832627B4F6",
		RequestID: "000000000000000000000000", Operation: "PutObject", Vars: vars,
	}}
	return &webhook.Message{ID: one.ID, Kind: webhook.Sample, At: now, Event: one}
}

// attempt returns the row of an outcome.
func (o *outcome) attempt(endpoint uuid.UUID, m *webhook.Message, received time.Time, reason Reason, number int) Attempt {
	a := Attempt{
		EndpointID: endpoint, EventID: m.ID, Kind: m.Kind, ReceivedAt: moment(received), Reason: reason, Number: number, At: o.began.UTC(),
		Delivered: o.delivered(), Problem: text(o.problem), Answer: o.answer, TookMS: float64(o.took.Microseconds()) / 1000,
	}
	if o.status != 0 {
		a.Status = &o.status
	}
	return a
}

// checkViolation is the SQLSTATE of a row without a partition.
const checkViolation = "23514"

// writeAttempts inserts rows, and makes their months if there are none yet.
func writeAttempts(ctx context.Context, pool *pgxpool.Pool, attempts []Attempt, now time.Time) error {
	err := insertAttempts(ctx, pool, attempts)
	if migrations.ServerError(err).Code == checkViolation {
		if err = makePartitions(ctx, pool, now); err == nil {
			err = insertAttempts(ctx, pool, attempts)
		}
	}
	if err != nil {
		return fmt.Errorf("record attempts: %w", unavailable(err))
	}
	return nil
}

func insertAttempts(ctx context.Context, pool *pgxpool.Pool, attempts []Attempt) error {
	var b struct {
		endpoints, events []uuid.UUID
		received          []*time.Time
		kinds             []string
		reasons, answers  []string
		numbers           []int
		at                []time.Time
		delivered         []bool
		statuses          []*int
		took              []float64
		problems          []*string
	}
	for _, a := range attempts {
		b.endpoints, b.events, b.received = append(b.endpoints, a.EndpointID), append(b.events, a.EventID), append(b.received, a.ReceivedAt)
		b.kinds = append(b.kinds, string(a.Kind))
		b.reasons, b.answers, b.numbers = append(b.reasons, string(a.Reason)), append(b.answers, a.Answer), append(b.numbers, a.Number)
		b.at, b.delivered, b.statuses = append(b.at, a.At), append(b.delivered, a.Delivered), append(b.statuses, a.Status)
		b.took, b.problems = append(b.took, a.TookMS), append(b.problems, a.Problem)
	}
	_, err := eventstore.Exec(ctx, pool, "", `
		INSERT INTO upcall.hook_attempts
			(endpoint_id, event_id, received_at, reason, attempt, at, delivered, status, took, problem, answer, kind)
		SELECT endpoint_id, event_id, received_at, reason, attempt, at, delivered, status, took * interval '1 millisecond', problem,
			answer, kind
		FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::text[], $5::integer[], $6::timestamptz[], $7::boolean[],
			$8::integer[], $9::float8[], $10::text[], $11::text[], $12::text[])
			AS a (endpoint_id, event_id, received_at, reason, attempt, at, delivered, status, took, problem, answer, kind)`, nil,
		b.endpoints, b.events, b.received, b.reasons, b.numbers, b.at, b.delivered, b.statuses, b.took, b.problems, b.answers, b.kinds)
	return err
}

// Attempts returns the attempts of the last 14 days that are kept, the latest first: those
// that failed, tests, redeliveries, and the latest 100 that succeeded. before limits them to
// earlier ones; its zero value does not.
func (e *Endpoints) Attempts(ctx context.Context, endpoint string, before time.Time, limit int) ([]Attempt, error) {
	if err := checkLimit(limit); err != nil {
		return nil, err
	}
	found, err := e.Get(ctx, endpoint)
	if err != nil {
		return nil, err
	}
	now := e.config.Now()
	if before.IsZero() {
		before = now.Add(time.Hour) // another receiver's clock may be ahead
	}
	return e.listAttempts(ctx, "endpoint_id = $1 AND at < $2 AND at > $3 ORDER BY at DESC LIMIT $4",
		found.ID, before, now.Add(-keepAttempts), limit)
}

// AttemptsOf returns the kept attempts to tell of an event, and of what was found about it, to all
// endpoints, the latest first.
func (e *Endpoints) AttemptsOf(ctx context.Context, id uuid.UUID) ([]Attempt, error) {
	ids := []uuid.UUID{id, event.FindingID(id, webhook.Disputed), event.FindingID(id, webhook.Gone)}
	return e.listAttempts(ctx, "event_id = ANY ($1) AND at > $2 ORDER BY at DESC LIMIT $3",
		ids, e.config.Now().Add(-keepAttempts), maxListed)
}

func (e *Endpoints) listAttempts(ctx context.Context, condition string, args ...any) ([]Attempt, error) {
	all := []Attempt{}
	_, err := eventstore.Exec(ctx, e.config.Pool, "", `
		SELECT endpoint_id, event_id, received_at, reason, attempt, at, delivered, status, 1000 * extract(epoch FROM took)::float8,
			problem, answer, kind
		FROM upcall.hook_attempts WHERE `+condition, func(rows pgx.Rows) error {
		var err error
		all, err = pgx.AppendRows(all, rows, func(row pgx.CollectableRow) (a Attempt, err error) {
			err = row.Scan(&a.EndpointID, &a.EventID, &a.ReceivedAt, (*string)(&a.Reason), &a.Number, &a.At, &a.Delivered, &a.Status,
				&a.TookMS, &a.Problem, &a.Answer, (*string)(&a.Kind))
			a.At = a.At.UTC()
			return a, err
		})
		return err
	}, args...)
	if err != nil {
		return nil, fmt.Errorf("list attempts: %w", unavailable(err))
	}
	return all, nil
}

// Failed returns the deliveries of an endpoint, or of all endpoints if it is "", that failed and
// were not made good: dead letters, or else those that wait for the next attempt.
func (e *Endpoints) Failed(ctx context.Context, endpoint string, dead bool, limit int) ([]Waiting, error) {
	if err := checkLimit(limit); err != nil {
		return nil, err
	}
	var id *uuid.UUID
	if endpoint != "" {
		found, err := e.Get(ctx, endpoint)
		if err != nil {
			return nil, err
		}
		id = &found.ID
	}
	all := []Waiting{}
	_, err := eventstore.Exec(ctx, e.config.Pool, "", `
		SELECT r.endpoint_id, e.name, r.event_id, r.kind, r.received_at, r.due_at IS NULL, r.attempts, r.due_at, r.status, r.problem,
			r.failed_at
		FROM upcall.hook_retries r JOIN upcall.hook_endpoints e ON e.id = r.endpoint_id
		WHERE ($1::uuid IS NULL OR r.endpoint_id = $1) AND (r.due_at IS NULL) = $2 AND e.state <> 'removing'
		ORDER BY r.failed_at DESC NULLS LAST, r.event_id LIMIT $3`, func(rows pgx.Rows) (err error) {
		all, err = pgx.AppendRows(all, rows, func(row pgx.CollectableRow) (w Waiting, err error) {
			err = row.Scan(&w.EndpointID, &w.Endpoint, &w.EventID, (*string)(&w.Kind), &w.ReceivedAt, &w.Dead, &w.Attempts, &w.DueAt,
				&w.Status, (*zeronull.Text)(&w.Problem), &w.FailedAt)
			w.ReceivedAt = w.ReceivedAt.UTC()
			return w, err
		})
		return err
	}, id, dead, limit)
	if err != nil {
		return nil, fmt.Errorf("list failed deliveries: %w", unavailable(err))
	}
	return all, nil
}

func checkLimit(limit int) error {
	if limit < 1 || limit > maxListed {
		return fault.New(ErrLimit, "limit", "", "%d is not between 1 and %d", limit, maxListed)
	}
	return nil
}
