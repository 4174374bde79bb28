package eventstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Refusal returns why a callback of an upload was refused within the last minutes, as in the log and in
// /metrics; "" if no receiver has written that. What a forged token says is only found by the request.
func (u *Uploads) Refusal(ctx context.Context, upload uuid.UUID, requestID string) (string, error) {
	var reason string
	err := u.pool.QueryRow(ctx, `
		SELECT reason FROM upcall.refused_callbacks
		WHERE (upload_id = $1 OR request_id = $2) AND refused_at > now() - interval '10 minutes'
		ORDER BY refused_at DESC LIMIT 1`, upload, requestID).Scan(&reason)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return "", fmt.Errorf("get refusal: %w", unavailable(err))
	}
	return reason, nil
}

// Recorded reports whether an upload has an event.
func (u *Uploads) Recorded(ctx context.Context, upload uuid.UUID) (bool, error) {
	status, err := u.Get(ctx, upload)
	return status.Event != nil, err
}
