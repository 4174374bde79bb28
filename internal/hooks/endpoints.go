package hooks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/fault"
	"upcall/internal/feed"
	"upcall/internal/webhook"
)

const (
	// confirmEvery is how often a change looks whether the receiver knows of it, and
	// confirmTimeout for how long: a lease of a receiver that died ends before that.
	confirmEvery, confirmTimeout = 20 * time.Millisecond, 25 * time.Second
	// stepRows is how many rows one statement changes, because a transaction that writes holds
	// up all readers of the log.
	stepRows = 1000
	// maxRotation is how long two secrets may sign.
	maxRotation = 30 * 24 * time.Hour
)

// Config configures [Endpoints].
type Config struct {
	// Pool is from eventstore.Open. Required.
	Pool *pgxpool.Pool
	// Log says where new endpoints begin. Required for Add.
	Log *feed.Log
	// Rules say where deliveries may go.
	Rules Rules
	// Logger is told of what operators do. Required.
	Logger *slog.Logger
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Endpoints is what an operator does with endpoints. Wherever a method takes an endpoint, that
// is its id or its name.
//
// A change holds when the method returns: no attempt with the former settings begins after
// that, through whichever receiver. Errors wrap a sentinel of this package, or
// event.ErrUnavailable; what a user can fix is a [fault.List] whose fields are members of the
// JSON.
type Endpoints struct{ config Config }

// NewEndpoints returns the endpoints in a database.
func NewEndpoints(config Config) (*Endpoints, error) {
	if config.Pool == nil || config.Logger == nil {
		return nil, errors.New("hooks config: Pool and Logger are required")
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	return &Endpoints{config}, nil
}

// List returns all endpoints by name.
func (e *Endpoints) List(ctx context.Context) ([]Endpoint, error) {
	return e.load(ctx, "state <> 'removing'")
}

// Get returns an endpoint. The error wraps [ErrNotFound].
func (e *Endpoints) Get(ctx context.Context, endpoint string) (Endpoint, error) {
	var found []Endpoint
	var err error
	if id, bad := uuid.Parse(endpoint); bad == nil {
		found, err = e.load(ctx, "id = $1 AND state <> 'removing'", id)
	} else if checkName(endpoint) == nil { // else no endpoint has the name
		found, err = e.load(ctx, "name = $1 AND state <> 'removing'", endpoint)
	}
	if err != nil {
		return Endpoint{}, err
	}
	if len(found) == 0 {
		return Endpoint{}, fault.New(ErrNotFound, "endpoint", "see receiver hooks list", "there is no endpoint %s", fault.Quote(endpoint))
	}
	return found[0], nil
}

// load returns endpoints with the number of their retries and dead letters.
func (e *Endpoints) load(ctx context.Context, condition string, args ...any) ([]Endpoint, error) {
	all, err := loadEndpoints(ctx, e.config.Pool, condition, args...)
	if err != nil || len(all) == 0 {
		return []Endpoint{}, err
	}
	place := make(map[uuid.UUID]int)
	ids := make([]uuid.UUID, len(all))
	for i := range all {
		ids[i] = all[i].ID
		place[ids[i]] = i
	}
	var id uuid.UUID
	var waiting, dead int
	_, err = eventstore.Exec(ctx, e.config.Pool, "", `
		SELECT endpoint_id, count(due_at), count(*) - count(due_at) FROM upcall.hook_retries WHERE endpoint_id = ANY($1) GROUP BY endpoint_id`,
		func(rows pgx.Rows) error {
			_, err := pgx.ForEachRow(rows, []any{&id, &waiting, &dead}, func() error {
				all[place[id]].Waiting, all[place[id]].DeadLetters = waiting, dead
				return nil
			})
			return err
		}, ids)
	if err == nil {
		// Rows of an hour, as the view hook_status counts them.
		_, err = eventstore.Exec(ctx, e.config.Pool, "", `
			SELECT endpoint_id, coalesce(sum(attempts) FILTER (WHERE outcome = 'delivered'), 0)::bigint,
				coalesce(sum(attempts) FILTER (WHERE outcome <> 'delivered'), 0)::bigint
			FROM upcall.hook_counts WHERE endpoint_id = ANY($1) AND hour > now() - interval '25 hours' GROUP BY endpoint_id`,
			func(rows pgx.Rows) error {
				var delivered, failed int
				_, err := pgx.ForEachRow(rows, []any{&id, &delivered, &failed}, func() error {
					all[place[id]].Delivered, all[place[id]].Failed = delivered, failed
					return nil
				})
				return err
			}, ids)
	}
	if err != nil {
		return nil, fmt.Errorf("read endpoints: %w", unavailable(err))
	}
	return all, nil
}

// Update changes settings and returns the endpoint as it is then.
func (e *Endpoints) Update(ctx context.Context, endpoint string, c Change) (Endpoint, error) {
	return e.change(ctx, endpoint, "endpoint was changed", func(changed *Endpoint) error {
		changed.Settings = c.Apply(changed.Settings).withDefaults()
		if changed.Name == "" {
			return fault.In("name", fault.New(ErrName, "", "leave it out to keep it", "it is empty"))
		}
		return changed.Settings.Check(e.config.Rules)
	})
}

// Pause stops deliveries; Resume goes on with all that has waited.
func (e *Endpoints) Pause(ctx context.Context, endpoint string) (Endpoint, error) {
	return e.change(ctx, endpoint, "endpoint was paused", func(changed *Endpoint) error {
		if changed.State != Disabled { // which stops deliveries as well, and says why
			changed.State = Paused
		}
		return nil
	})
}

// Resume ends a pause. An endpoint that was failing or disabled is tried anew.
func (e *Endpoints) Resume(ctx context.Context, endpoint string) (Endpoint, error) {
	return e.change(ctx, endpoint, "endpoint was resumed", func(changed *Endpoint) error {
		changed.State, changed.Reason, changed.resumed = Active, "", true
		changed.FailingSince, changed.ProbeAt, changed.pause = time.Time{}, time.Time{}, 0
		return nil
	})
}

// Rotate replaces the secret; a zero value makes one. Deliveries are signed with both for as
// long as keep says; 0 ends the previous one at once.
func (e *Endpoints) Rotate(ctx context.Context, endpoint string, secret webhook.Secret, keep time.Duration) (
	Endpoint, webhook.Secret, error) {
	if keep < 0 || keep > maxRotation {
		return Endpoint{}, webhook.Secret{}, fault.New(ErrLimit, "keep", "", "%v is not between 0s and %v", keep, maxRotation)
	}
	if secret.IsZero() {
		secret = webhook.NewSecret()
	}
	rotated, err := e.change(ctx, endpoint, "secret was rotated", func(changed *Endpoint) error {
		changed.previous, changed.RotatedUntil = webhook.Secret{}, time.Time{}
		if keep > 0 && changed.secret.Reveal() != secret.Reveal() {
			changed.previous, changed.RotatedUntil = changed.secret, e.config.Now().Add(keep).Truncate(time.Microsecond)
		}
		changed.secret = secret
		return nil
	})
	return rotated, secret, err
}

// Remove removes an endpoint with its retries, dead letters and attempts.
func (e *Endpoints) Remove(ctx context.Context, endpoint string) error {
	removed, err := e.change(ctx, endpoint, "endpoint was removed", func(changed *Endpoint) error {
		changed.State, changed.Name = removing, changed.ID.String() // so that its name can be used again
		return nil
	})
	if err != nil {
		return err
	}
	if err := e.discard(ctx, removed); err != nil {
		return fmt.Errorf("remove endpoint: %w", unavailable(err))
	}
	return nil
}

// discard deletes what is left of an endpoint that no receiver works for any more.
func (e *Endpoints) discard(ctx context.Context, removed Endpoint) error {
	for _, table := range []string{"hook_retries", "hook_attempts", "hook_counts"} {
		for {
			tag, err := eventstore.Exec(ctx, e.config.Pool, "", fmt.Sprintf(`
				DELETE FROM upcall.%[1]s WHERE endpoint_id = $1 AND (tableoid, ctid) IN (
					SELECT tableoid, ctid FROM upcall.%[1]s WHERE endpoint_id = $1 LIMIT $2)`, table), nil, removed.ID, stepRows)
			if err != nil {
				return err
			}
			if tag.RowsAffected() < stepRows {
				break
			}
		}
	}
	return eventstore.Transact(ctx, e.config.Pool, func(tx pgx.Tx) error {
		if err := feed.RemoveConsumer(ctx, tx, removed.consumer()); err != nil && !errors.Is(err, feed.ErrNoConsumer) {
			return err
		}
		_, err := tx.Exec(ctx, "DELETE FROM upcall.hook_endpoints WHERE id = $1", removed.ID)
		return err
	})
}

// changeTries is how often a change starts again because someone else made another one.
const changeTries = 10

// change changes an endpoint, and returns when the receiver that sends its deliveries works
// with the change, or none does.
func (e *Endpoints) change(ctx context.Context, endpoint, what string, change func(*Endpoint) error) (Endpoint, error) {
	for range changeTries {
		changed, err := e.Get(ctx, endpoint)
		if err != nil {
			return Endpoint{}, err
		}
		if err := change(&changed); err != nil {
			return Endpoint{}, err
		}
		changed.ChangedAt = e.config.Now().Truncate(time.Microsecond)
		ok, err := updateEndpoint(ctx, e.config.Pool, &changed)
		switch {
		case isUnique(err):
			return Endpoint{}, fault.New(ErrExists, "name", "choose another", "there is an endpoint named %s already", changed.Name)
		case err != nil:
			return Endpoint{}, fmt.Errorf("change endpoint: %w", unavailable(err))
		case ok:
			e.log(ctx, what, changed)
			return changed, e.confirm(ctx, changed)
		}
	}
	return Endpoint{}, fmt.Errorf("change endpoint: %w: others change it all the time", event.ErrUnavailable)
}

// confirm waits until the holder of the endpoint's lease works with this version. A receiver
// that was killed or is cut off confirms nothing, but begins no attempt after its lease.
func (e *Endpoints) confirm(ctx context.Context, changed Endpoint) error {
	for began := time.Now(); ; {
		var known bool
		_, err := eventstore.Exec(ctx, e.config.Pool, "", `
			SELECT confirmed >= $2 OR NOT EXISTS (SELECT FROM upcall.feed_consumers WHERE name = $3 AND lease_until > clock_timestamp())
			FROM upcall.hook_endpoints WHERE id = $1`, func(rows pgx.Rows) (err error) {
			known, err = pgx.CollectExactlyOneRow(rows, pgx.RowTo[bool])
			return err
		}, changed.ID, changed.version, changed.consumer())
		switch {
		case errors.Is(err, pgx.ErrNoRows): // it has been removed in the meantime
			return nil
		case err != nil:
			return fmt.Errorf("wait for the receiver: %w", unavailable(err))
		case known:
			return nil
		case time.Since(began) > confirmTimeout:
			return fmt.Errorf("the change of endpoint %s is made: %w", changed.Name, ErrUnconfirmed)
		}
		if err := sleep(ctx, confirmEvery); err != nil {
			return err
		}
	}
}

func (e *Endpoints) log(ctx context.Context, what string, endpoint Endpoint) {
	e.config.Logger.InfoContext(ctx, what, slog.String("endpoint", endpoint.Name), slog.String("endpoint_id", endpoint.ID.String()))
}

// sleep waits, or returns why ctx ended.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
