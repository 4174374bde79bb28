package sample

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/admission"
	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/feed"
	"upcall/internal/hooks"
)

// fillKeys makes the API keys that the ledger names. Nobody has their secrets.
func fillKeys(ctx context.Context, pool *pgxpool.Pool, m *maker) error {
	for i, c := range clients {
		if c.key == "" {
			continue
		}
		r := m.draw(i, drawOther)
		hash := make([]byte, 32)
		for k := range hash {
			hash[k] = byte(r.Uint32())
		}
		_, err := pool.Exec(ctx, `INSERT INTO upcall.api_keys (id, hash, policy, created_at) VALUES ($1, $2, $1, $3)
			ON CONFLICT DO NOTHING`, c.key, hash, m.calendar.begins)
		if err != nil {
			return err
		}
	}
	return nil
}

// refusals are why callbacks are refused, and how often.
var refusals = []struct {
	reason admission.Reason
	share  float64
}{
	{admission.ReasonTokenMissing, 0.4}, {admission.ReasonTokenExpired, 0.25}, {admission.ReasonTokenRevoked, 0.15},
	{admission.ReasonBucketNotAllowed, 0.1}, {admission.ReasonTokenForeignKey, 0.07}, {admission.ReasonTokenForged, 0.03},
}

// fillRefusals makes one refusal for 1000 events, as many as receivers keep.
func fillRefusals(ctx context.Context, pool *pgxpool.Pool, m *maker) error {
	store, err := eventstore.NewRefusals(pool, eventstore.DefaultMaxRefusals)
	if err != nil {
		return err
	}
	n := min(max(m.events/1000, 1), eventstore.DefaultMaxRefusals)
	var some []event.RefusedCallback
	for i := range n {
		r := m.draw(len(clients)+i, drawOther)
		k := 0
		for at := r.Float64(); k < len(refusals)-1 && at >= refusals[k].share; k++ {
			at -= refusals[k].share
		}
		at := (float64(i) + r.Float64()) / float64(n)
		refused := event.RefusedCallback{Digest: id(r), Reason: string(refusals[k].reason), At: m.calendar.at(at), Source: address(r)}
		o := m.newObject(r, int(at*float64(m.events)))
		refused.Bucket, refused.Object, refused.RequestID = o.shelf.bucket, o.key, requestID(r, refused.At)
		switch refusals[k].reason {
		case admission.ReasonTokenExpired, admission.ReasonTokenRevoked, admission.ReasonTokenForeignKey:
			refused.UploadID = uuid.NullUUID{UUID: timeID(r, refused.At.Add(-time.Hour)), Valid: true}
		}
		if some = append(some, refused); len(some) == copyRows || i == n-1 {
			if err := store.Keep(ctx, some); err != nil {
				return err
			}
			some = some[:0]
		}
	}
	return nil
}

// An endpoint is an application that is told of uploads. None is active, so that a receiver on the
// database sends nothing.
type endpoint struct {
	name, state, reason string
	failing             float64 // share of the attempts
	status              int     // of failures; 0 if there is no answer
	problem             string
	waiting, dead       int
}

var endpoints = []endpoint{
	{"thumbnails", "paused", "", 0.002, 503, "the answer is 503", 2, 0},
	{"search-index", "paused", "", 0.02, 429, "the answer is 429", 9, 1},
	{"billing", "paused", "", 0.11, 500, "the answer is 500", 40, 17},
	{"legacy-crm", "disabled", "the answer is 410", 0.9, 410, "the answer is 410", 0, 120},
	{"audit", "paused", "", 0, 200, "", 0, 0},
	{"mobile-push", "paused", "", 0.05, 0, "connection timed out", 25, 3},
}

// attemptDays is for how many days attempts are kept.
const attemptDays = 14

// fillHooks makes endpoints that have read all of the log, and two weeks of their attempts.
func fillHooks(ctx context.Context, pool *pgxpool.Pool, log *feed.Log, m *maker) error {
	if err := hooks.Keep(ctx, pool, m.until); err != nil {
		return err
	}
	cursor, err := log.Now(ctx)
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		for i, e := range endpoints {
			r := m.draw(i, drawOther+1)
			endpointID := id(r)
			if err := e.insert(ctx, tx, m, endpointID); err != nil {
				return err
			}
			if err := feed.AddConsumer(ctx, tx, "hook/"+endpointID.String(), cursor); err != nil {
				return err
			}
			if err := e.count(ctx, tx, m, r, endpointID); err != nil {
				return err
			}
			if err := e.fail(ctx, tx, m, r, endpointID); err != nil {
				return err
			}
		}
		return nil
	})
}

func (e endpoint) insert(ctx context.Context, tx pgx.Tx, m *maker, endpointID uuid.UUID) error {
	var failing *time.Time
	if e.state == "disabled" {
		failing = new(m.until.Add(-72 * time.Hour))
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO upcall.hook_endpoints
			(id, name, url, filter, headers, max_in_flight, secret, state, reason, failing_since, created_at, changed_at, version)
		VALUES ($1, $2, 'https://' || $2 || '.example/hook', '{"on": ["recorded"]}', '{}', 8,
			'whsec_' || encode(sha256($2::text::bytea), 'base64'), $3, nullif($4, ''), $5, $6, $7, 0)`,
		endpointID, e.name, e.state, e.reason, failing, m.calendar.begins, m.until)
	return err
}

// count makes hourly counts.
func (e endpoint) count(ctx context.Context, tx pgx.Tx, m *maker, r *rand.Rand, endpointID uuid.UUID) error {
	var rows [][]any
	for hour := m.until.Add(-attemptDays * 24 * time.Hour).Truncate(time.Hour); hour.Before(m.until); hour = hour.Add(time.Hour) {
		attempts := float64(m.events) / 365 / 24 * hours[hour.In(chinaTime).Hour()] / 10 * (0.9 + 0.2*r.Float64())
		failed := int64(attempts*e.failing + r.Float64())
		for outcome, n := range map[string]int64{
			"delivered": int64(attempts) - failed, "failed": failed - failed/10, "dead": failed / 10,
		} {
			if n > 0 && (outcome == "delivered" || e.failing > 0) {
				rows = append(rows, []any{endpointID, hour, outcome, n})
			}
		}
	}
	_, err := tx.CopyFrom(ctx, pgx.Identifier{"upcall", "hook_counts"}, []string{"endpoint_id", "hour", "outcome", "attempts"},
		pgx.CopyFromRows(rows))
	return err
}

// fail makes the deliveries that wait or are dead letters, with their attempts.
func (e endpoint) fail(ctx context.Context, tx pgx.Tx, m *maker, r *rand.Rand, endpointID uuid.UUID) error {
	var retries, attempts [][]any
	var status *int
	if e.status != 0 {
		status = &e.status
	}
	for k := range min(e.waiting+e.dead, m.events) {
		one := m.row(m.events - 1 - k).event
		if one.ReceivedAt.Before(m.until.AddDate(0, 0, -attemptDays)) {
			break
		}
		tries, at := 1+r.IntN(4), m.before(one.ReceivedAt.Add(milliseconds(r, 9e5, 0.5)))
		var due *time.Time
		if k < e.waiting {
			due = new(at.Add(30 * time.Minute))
		} else {
			tries = 10
		}
		retries = append(retries, []any{endpointID, one.ID, one.ReceivedAt, "recorded", "retry", tries, due, status, e.problem, at})
		for attempt := 1; attempt <= tries; attempt++ {
			reason := "retry"
			if attempt == 1 {
				reason = "first"
			}
			attempts = append(attempts, []any{endpointID, one.ID, one.ReceivedAt, reason, attempt,
				at.Add(time.Duration(attempt-tries) * time.Minute), false, status, milliseconds(r, 180, 0.7), e.problem, ""})
		}
	}
	_, err := tx.CopyFrom(ctx, pgx.Identifier{"upcall", "hook_retries"}, []string{"endpoint_id", "event_id", "received_at", "kind",
		"reason", "attempts", "due_at", "status", "problem", "failed_at"}, pgx.CopyFromRows(retries))
	if err != nil {
		return fmt.Errorf("copy retries: %w", err)
	}
	_, err = tx.CopyFrom(ctx, pgx.Identifier{"upcall", "hook_attempts"}, []string{"endpoint_id", "event_id", "received_at", "reason",
		"attempt", "at", "delivered", "status", "took", "problem", "answer"}, pgx.CopyFromRows(attempts))
	if err != nil {
		return fmt.Errorf("copy attempts: %w", err)
	}
	return nil
}
