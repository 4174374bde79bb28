package eventstore

import (
	"context"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// waiting erases notifications that wait for their callback. Settled ones have nothing to erase, see [Settle].
func (x *Eraser) waiting(ctx context.Context) error {
	if x.request.Upload.Valid {
		return x.eraseWaiting(ctx, "upload_id = $1", x.request.Upload)
	}
	return x.eraseWaiting(ctx, "vars->>$1 = $2", x.request.Variable, x.request.Value)
}

// waitingOf erases those of uploads, also those that only bucket and key tell to be of them.
func (x *Eraser) waitingOf(ctx context.Context, uploads []uuid.UUID) error {
	return x.eraseWaiting(ctx, `(upload_id = ANY ($1) OR (bucket, object_key) IN (
		SELECT bucket, object_key FROM upcall.issued_uploads WHERE upload_id = ANY ($1)))`, uploads)
}

// eraseWaiting erases those that meet a condition.
func (x *Eraser) eraseWaiting(ctx context.Context, condition string, args ...any) error {
	for {
		var found []uuid.UUID
		err := x.read(ctx, func(rows pgx.Rows) (err error) {
			found, err = pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
			return err
		}, `SELECT id FROM upcall.notifications
			WHERE settled_at IS NULL AND (vars <> '{}' OR client_ip IS NOT NULL) AND `+condition, args...)
		if err != nil || len(found) == 0 {
			return err
		}
		for some := range slices.Chunk(found, eraseBatch) {
			err := x.step(ctx, `
				WITH erased AS (
					UPDATE upcall.notifications SET vars = '{}', client_ip = NULL
					WHERE id = ANY ($2) AND (vars <> '{}' OR client_ip IS NOT NULL) RETURNING 1
				)
				UPDATE upcall.erasures SET events = events + (SELECT count(*) FROM erased) WHERE id = $1`, x.id, some)
			if err != nil {
				return err
			}
		}
	}
}

// filters looks for endpoints that an operator must change.
func (x *Eraser) filters(ctx context.Context) error {
	return x.read(ctx, func(rows pgx.Rows) (err error) {
		x.Filters, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	}, "SELECT name FROM upcall.hook_endpoints WHERE NOT $3 AND filter->'vars'->>$1 = $2 ORDER BY name",
		x.request.Variable, x.request.Value, x.request.Upload.Valid)
}
