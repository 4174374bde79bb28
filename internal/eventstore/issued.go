package eventstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype/zeronull"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/event"
)

// A Status is the state of an issued upload, as in the view upcall.upload_status.
type Status string

const (
	StatusIssued   Status = "issued"   // it may still be used
	StatusUploaded Status = "uploaded" // at least one event is recorded
	StatusExpired  Status = "expired"  // without being used, as far as we know
	StatusRevoked  Status = "revoked"  // whether it was used before or not
)

// An IssuedStatus is an issued upload with its status.
type IssuedStatus struct {
	IssuedUpload
	Status    Status
	RevokedAt time.Time    // zero if it was not revoked
	Event     *event.Event // the last that was received; nil if there is none
}

// Uploads are the issued uploads with their status.
type Uploads struct {
	pool *pgxpool.Pool
}

// NewUploads returns the uploads in the database of a pool from [Open].
func NewUploads(pool *pgxpool.Pool) *Uploads { return &Uploads{pool} }

// Get returns the upload with this ID. PostgreSQL's clock decides whether it has expired.
//
// An error wraps [ErrNotFound] or [event.ErrUnavailable].
func (u *Uploads) Get(ctx context.Context, id uuid.UUID) (IssuedStatus, error) {
	var s IssuedStatus
	// One snapshot, so that the status and the event agree.
	snapshot := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err := pgx.BeginTxFunc(ctx, u.pool, snapshot, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, `
			SELECT u.upload_id, u.issued_at, u.expires_at, u.bucket, u.object_key, u.by_prefix,
				coalesce(u.content_type, ''), u.size, u.vars, coalesce(u.api_key_id, ''), coalesce(u.oss_upload_id, ''), s.status, s.revoked_at
			FROM upcall.issued_uploads u JOIN upcall.upload_status s USING (upload_id)
			WHERE upload_id = $1`, id).
			Scan(&s.ID, &s.IssuedAt, &s.ExpiresAt, &s.Bucket, &s.Object, &s.ByPrefix, &s.ContentType, &s.Size,
				&s.Vars, &s.APIKeyID, &s.OSSUploadID, &s.Status, (*zeronull.Timestamptz)(&s.RevokedAt))
		if err != nil {
			return err
		}
		s.Event, err = lastEvent(ctx, tx, id)
		return err
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return IssuedStatus{}, fmt.Errorf("get upload %s: %w", id, ErrNotFound)
	case err != nil:
		return IssuedStatus{}, fmt.Errorf("get upload: %w", unavailable(err))
	}
	return s, nil
}

const revokeUpload = `
	WITH upload AS (
		SELECT upload_id FROM upcall.issued_uploads WHERE upload_id = $1
	), revoked AS (
		INSERT INTO upcall.revoked_uploads (upload_id, revoked_at) SELECT upload_id, now() FROM upload
		ON CONFLICT DO NOTHING
	)
	SELECT EXISTS (SELECT FROM upload) AND NOT ` + barrier

// Revoke makes every receiver refuse callbacks of the upload from now on; one that is being
// committed at this moment may still be recorded. OSS does not know, and accepts the upload
// until it expires. Revoking it again changes nothing.
//
// An error wraps [ErrNotFound] or [event.ErrUnavailable].
func (u *Uploads) Revoke(ctx context.Context, id uuid.UUID) error {
	var found bool
	err := queryRow(ctx, u.pool, &found, revokeUpload, id)
	switch {
	case err != nil:
		return fmt.Errorf("revoke upload: %w", unavailable(err))
	case !found:
		return fmt.Errorf("revoke upload %s: %w", id, ErrNotFound)
	}
	return nil
}

// lastEvent returns the event of an upload that was received last, or nil.
func lastEvent(ctx context.Context, tx pgx.Tx, upload uuid.UUID) (*event.Event, error) {
	rows, _ := tx.Query(ctx, `
		SELECT `+ownColumns+`
		FROM upcall.upload_events
		WHERE upload_id = $1
		ORDER BY received_at DESC, id DESC
		LIMIT 1`, upload)
	last, err := pgx.CollectOneRow(rows, scanEvent)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return last, err
}
