package hooks

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"upcall/internal/eventstore"
	"upcall/internal/fault"
	"upcall/internal/feed"
	"upcall/internal/webhook"
)

const (
	// answerTime is the longest from the commit of an event to the answer of its callback, which
	// has four seconds in all. If callbacks come in, Add waits for so long after it has taken
	// the place in the log where the endpoint begins: then what was committed before that place
	// has been answered. They come in if one was received lately, by clocks that may differ.
	answerTime, lately = 4 * time.Second, 10 * time.Second
	// settleTime is for receivers to notice a new endpoint before Add returns.
	settleTime = 500 * time.Millisecond
)

// Add makes an endpoint and returns it with its secret, which is a new one if it is given as the
// zero value. Show it once, by [webhook.Secret.Reveal]. An event whose callback is answered
// after Add has returned is delivered, and with the zero Start none whose callback was answered
// before Add was called, unless it was spooled. So Add takes half a second, and four seconds
// more while callbacks come in; if ctx ends in that time, it returns the endpoint at once.
func (e *Endpoints) Add(ctx context.Context, s Settings, secret webhook.Secret, from Start) (Endpoint, webhook.Secret, error) {
	added, secret, err := e.add(ctx, s, secret, from)
	if err != nil {
		return Endpoint{}, webhook.Secret{}, err
	}
	pause := settleTime
	if from == (Start{}) && e.isBusy(ctx) {
		pause += answerTime
	}
	_ = sleep(ctx, pause)
	return added, secret, nil
}

// add is Add without the pauses.
func (e *Endpoints) add(ctx context.Context, s Settings, secret webhook.Secret, from Start) (Endpoint, webhook.Secret, error) {
	if err := s.Check(e.config.Rules); err != nil {
		return Endpoint{}, webhook.Secret{}, err
	}
	if secret.IsZero() {
		secret = webhook.NewSecret()
	}
	now := e.config.Now().Truncate(time.Microsecond)
	added := Endpoint{
		ID: uuid.New(), Settings: s.withDefaults(), State: Active, CreatedAt: now, ChangedAt: now, received: from.Since,
		secret: secret,
	}
	if added.Name == "" {
		added.Name = "hook-" + added.ID.String()[:8]
	}
	cursor, err := e.place(ctx, from)
	if err != nil {
		return Endpoint{}, webhook.Secret{}, fmt.Errorf("add endpoint: %w", err)
	}
	added.begins = cursor
	err = eventstore.Transact(ctx, e.config.Pool, func(tx pgx.Tx) error {
		if err := insertEndpoint(ctx, tx, &added); err != nil {
			return err
		}
		return feed.AddConsumer(ctx, tx, added.consumer(), cursor)
	})
	if isUnique(err) {
		return Endpoint{}, webhook.Secret{}, fault.New(ErrExists, "name", "choose another",
			"there is an endpoint named %s already", added.Name)
	}
	if err != nil {
		return Endpoint{}, webhook.Secret{}, fmt.Errorf("add endpoint: %w", unavailable(err))
	}
	e.log(ctx, "endpoint was added", added)
	return added, secret, nil
}

// isBusy reports whether callbacks come in, as far as that is known.
func (e *Endpoints) isBusy(ctx context.Context) (busy bool) {
	const query = "SELECT EXISTS (SELECT FROM upcall.upload_events WHERE received_at > now() - $1::interval)"
	_, err := eventstore.Exec(ctx, e.config.Pool, "", query, func(rows pgx.Rows) (err error) {
		busy, err = pgx.CollectExactlyOneRow(rows, pgx.RowTo[bool])
		return err
	}, lately)
	return busy || err != nil
}

// place returns where in the log an endpoint begins.
func (e *Endpoints) place(ctx context.Context, from Start) (feed.Cursor, error) {
	switch {
	case e.config.Log == nil:
		return feed.Cursor{}, errors.New("hooks config: Log is required")
	case from.Oldest:
		return e.config.Log.Oldest(ctx)
	case !from.Since.IsZero():
		return e.config.Log.Since(ctx, from.Since)
	}
	return e.config.Log.Now(ctx)
}
