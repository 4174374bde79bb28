package hooks

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/feed"
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

var errSkeleton = errors.New("hooks: not written yet")

// NewEndpoints returns the endpoints in a database.
func NewEndpoints(config Config) (*Endpoints, error) { return &Endpoints{config}, nil }

// Add makes an endpoint and returns it. If the secret is the zero value, a new one is made.
// Show it once, by [Secret.Reveal]. An event whose callback is answered after Add has returned is
// delivered.
func (e *Endpoints) Add(ctx context.Context, s Settings, secret Secret, from Start) (Endpoint, Secret, error) {
	return Endpoint{}, Secret{}, errSkeleton
}

// List returns all endpoints by name.
func (e *Endpoints) List(ctx context.Context) ([]Endpoint, error) { return nil, errSkeleton }

// Get returns an endpoint. The error wraps [ErrNotFound].
func (e *Endpoints) Get(ctx context.Context, endpoint string) (Endpoint, error) {
	return Endpoint{}, errSkeleton
}

// Update changes settings and returns the endpoint as it is then.
func (e *Endpoints) Update(ctx context.Context, endpoint string, c Change) (Endpoint, error) {
	return Endpoint{}, errSkeleton
}

// Pause stops deliveries; Resume goes on with all that has waited, also after the endpoint was
// disabled.
func (e *Endpoints) Pause(ctx context.Context, endpoint string) (Endpoint, error) {
	return Endpoint{}, errSkeleton
}

// Resume is the opposite of Pause.
func (e *Endpoints) Resume(ctx context.Context, endpoint string) (Endpoint, error) {
	return Endpoint{}, errSkeleton
}

// Rotate replaces the secret; a zero value makes one. Deliveries are signed with both for as
// long as keep says; 0 ends the previous one at once.
func (e *Endpoints) Rotate(ctx context.Context, endpoint string, secret Secret, keep time.Duration) (Endpoint, Secret, error) {
	return Endpoint{}, Secret{}, errSkeleton
}

// Remove removes an endpoint with its retries, dead letters and attempts.
func (e *Endpoints) Remove(ctx context.Context, endpoint string) error { return errSkeleton }

// Test sends a sample and returns what became of it. It works while the endpoint is paused.
func (e *Endpoints) Test(ctx context.Context, endpoint string) (Attempt, error) {
	return Attempt{}, errSkeleton
}

// Redeliver has messages sent again and returns how many. A paused endpoint gets them once it
// is resumed.
func (e *Endpoints) Redeliver(ctx context.Context, r RedeliveryOf) (int, error) {
	return 0, errSkeleton
}

// Attempts returns the attempts of the last 14 days that are kept, the latest first: those
// that failed, tests, redeliveries, and the latest 100 that succeeded. before limits them to
// earlier ones; its zero value does not.
func (e *Endpoints) Attempts(ctx context.Context, endpoint string, before time.Time, limit int) ([]Attempt, error) {
	return nil, errSkeleton
}

// AttemptsOf returns the kept attempts to tell of an event, to all endpoints, the latest first.
func (e *Endpoints) AttemptsOf(ctx context.Context, id uuid.UUID) ([]Attempt, error) {
	return nil, errSkeleton
}

// Failed returns the dead letters of an endpoint, of all endpoints if it is "", the latest
// first.
func (e *Endpoints) Failed(ctx context.Context, endpoint string, limit int) ([]Waiting, error) {
	return nil, errSkeleton
}
