package eventstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// RepeatableFor is for how long a request may be repeated.
	RepeatableFor = 24 * time.Hour
	// abandonedAfter is when a request without an answer may be answered by another attempt: the program that answered
	// it must have been stopped.
	abandonedAfter = time.Minute
	// forgetStep is how many requests that may not be repeated any more are deleted with each new one.
	forgetStep = 20
)

// ErrRepeat means that an earlier attempt is still answering the request.
var ErrRepeat = errors.New("the request is being answered")

// ErrOtherRequest means another request with the same key.
var ErrOtherRequest = errors.New("another request had the key")

// A Repeatable is a request that may come again.
type Repeatable struct {
	APIKeyID string
	Key      []byte // digest of what the application calls it
	Request  []byte // digest of all that decides the answer
	claim    uuid.UUID
}

// Repeatables are the requests that may come again, for [RepeatableFor]. Every error of its methods wraps
// [event.ErrUnavailable], [ErrRepeat] or [ErrOtherRequest].
type Repeatables struct {
	pool *pgxpool.Pool
}

// NewRepeatables returns those in the database of a pool from [Open].
func NewRepeatables(pool *pgxpool.Pool) *Repeatables { return &Repeatables{pool} }

const claimRequest = `
	WITH forgotten AS (
		DELETE FROM upcall.repeatable_requests WHERE ctid = ANY (ARRAY(
			SELECT ctid FROM upcall.repeatable_requests
			WHERE claimed_at < now() - $5::interval AND (api_key_id, key_digest) <> ($1, $2)
			ORDER BY claimed_at LIMIT $7 FOR UPDATE SKIP LOCKED))
	)
	INSERT INTO upcall.repeatable_requests AS r (api_key_id, key_digest, request, claim, claimed_at)
	VALUES ($1, $2, $3, $4, now())
	ON CONFLICT (api_key_id, key_digest) DO UPDATE
		SET request = excluded.request, claim = excluded.claim, claimed_at = excluded.claimed_at, answer = NULL
		WHERE r.claimed_at < now() - $5::interval
			OR r.answer IS NULL AND r.request = excluded.request AND r.claimed_at < now() - $6::interval
	RETURNING claim`

// Begin claims a request for an attempt to answer it, or returns the answer that it had. The caller must call Answer or
// Forget with the request that it returns.
func (s *Repeatables) Begin(ctx context.Context, r Repeatable) (claimed Repeatable, answer []byte, err error) {
	r.claim = uuid.New()
	var mine bool
	_, err = execOne(ctx, s.pool, func(rows pgx.Rows) error {
		mine = rows.Next()
		rows.Close()
		return rows.Err()
	}, claimRequest, r.APIKeyID, r.Key, r.Request, r.claim, RepeatableFor, abandonedAfter, forgetStep)
	if err != nil {
		return r, nil, fmt.Errorf("claim request: %w", unavailable(err))
	}
	if mine {
		return r, nil, nil
	}
	var same bool
	err = s.pool.QueryRow(ctx, `SELECT request = $3, answer FROM upcall.repeatable_requests WHERE api_key_id = $1 AND key_digest = $2`,
		r.APIKeyID, r.Key, r.Request).Scan(&same, &answer)
	switch {
	case errors.Is(err, pgx.ErrNoRows): // the other attempt has just failed
		return r, nil, fmt.Errorf("claim request: %w", ErrRepeat)
	case err != nil:
		return r, nil, fmt.Errorf("look for request: %w", unavailable(err))
	case !same:
		return r, nil, fmt.Errorf("claim request: %w", ErrOtherRequest)
	case answer == nil:
		return r, nil, fmt.Errorf("claim request: %w", ErrRepeat)
	}
	return r, answer, nil
}

// Answer keeps the answer to a request. The error wraps [ErrRepeat] if another attempt has taken over: then the answer is that
// one's, and this one must not be given.
func (s *Repeatables) Answer(ctx context.Context, r Repeatable, answer []byte) error {
	tag, err := execOne(ctx, s.pool, nil, `UPDATE upcall.repeatable_requests SET answer = $4
		WHERE api_key_id = $1 AND key_digest = $2 AND claim = $3 AND answer IS NULL`, r.APIKeyID, r.Key, r.claim, answer)
	switch {
	case err != nil:
		return fmt.Errorf("keep answer: %w", unavailable(err))
	case tag.RowsAffected() == 0:
		return fmt.Errorf("keep answer: %w", ErrRepeat)
	}
	return nil
}

// Forget ends a claim without an answer, so that the request can be made again.
func (s *Repeatables) Forget(ctx context.Context, r Repeatable) error {
	_, err := execOne(ctx, s.pool, nil, `DELETE FROM upcall.repeatable_requests
		WHERE api_key_id = $1 AND key_digest = $2 AND claim = $3 AND answer IS NULL`, r.APIKeyID, r.Key, r.claim)
	if err != nil {
		return fmt.Errorf("forget request: %w", unavailable(err))
	}
	return nil
}
