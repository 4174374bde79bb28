package eventstore

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"upcall/internal/event"
)

// An IssuedUpload is one upload that was handed out, as a row of upcall.issued_uploads.
type IssuedUpload struct {
	ID          uuid.UUID // the one in its token
	IssuedAt    time.Time // PostgreSQL keeps microseconds of both times
	ExpiresAt   time.Time // OSS lets no upload begin from then on
	Bucket      string
	Object      string            // the full object key
	ContentType string            // the only one that OSS takes; "" leaves it open
	Size        *int64            // of the whole object, in bytes; nil is not known
	Vars        map[string]string // custom variables by name without "x:"
	APIKeyID    string            // who asked for it; "" is the command line
	OSSUploadID string            // of a multipart upload; "" is a single PUT
}

// A Ledger holds every issued upload. It commits them in groups, as a [Recorder] does
// events.
type Ledger struct {
	group *group[issuedRow]
}

// NewLedger starts the writers. PostgreSQL need not be there yet.
func NewLedger(config Config) (*Ledger, error) {
	g, err := issuedKind.start(config)
	if err != nil {
		return nil, fmt.Errorf("ledger config: %w", err)
	}
	return &Ledger{g}, nil
}

// Issue returns when the upload's row is committed. To issue it again is harmless: the
// first row stays.
//
// An error wraps [event.ErrUnavailable] or [event.ErrUnstorable]. When ctx ends, the caller
// gets event.ErrUnavailable, but the row is still written if PostgreSQL can be reached. Do
// not change the map and the pointer in the upload afterwards.
func (l *Ledger) Issue(ctx context.Context, upload IssuedUpload) error {
	row, err := newIssuedRow(upload)
	if err != nil {
		return err
	}
	_, err = l.group.commit(ctx, upload.ID, row)
	return err
}

// Close accepts no more uploads, and returns when those it accepted are answered.
func (l *Ledger) Close() { l.group.close() }

// An issuedRow is an upload that PostgreSQL takes, as far as can be told beforehand.
type issuedRow struct {
	IssuedUpload
	vars []byte // Vars as JSON
}

func newIssuedRow(upload IssuedUpload) (issuedRow, error) {
	u := &upload
	if u.ID == uuid.Nil || u.Bucket == "" || u.Object == "" || u.IssuedAt.IsZero() || u.ExpiresAt.IsZero() {
		return issuedRow{}, fmt.Errorf("%w: an issued upload has an id, a bucket, an object key and two times", event.ErrUnstorable)
	}
	if err := storable(u.Bucket, u.Object, u.ContentType, u.APIKeyID, u.OSSUploadID); err != nil {
		return issuedRow{}, err
	}
	row := issuedRow{IssuedUpload: upload, vars: []byte("{}")}
	if len(u.Vars) == 0 {
		return row, nil
	}
	for name, value := range u.Vars {
		if err := storable(name, value); err != nil {
			return issuedRow{}, err
		}
	}
	var err error
	if row.vars, err = json.Marshal(u.Vars); err != nil {
		return issuedRow{}, fmt.Errorf("%w: %w", event.ErrUnstorable, err) // cannot happen: a map of texts
	}
	return row, nil
}

// issuedFields are the columns of issued uploads.
var issuedFields = []field[issuedRow]{
	{name: "upload_id", pointer: func(u *issuedRow) any { return &u.ID }},
	{name: "issued_at", pointer: func(u *issuedRow) any { return &u.IssuedAt }},
	{name: "expires_at", pointer: func(u *issuedRow) any { return &u.ExpiresAt }},
	{name: "bucket", pointer: func(u *issuedRow) any { return &u.Bucket }},
	{name: "object_key", pointer: func(u *issuedRow) any { return &u.Object }},
	{name: "content_type", pointer: func(u *issuedRow) any { return &u.ContentType }},
	{name: "size", pointer: func(u *issuedRow) any { return &u.Size }},
	{name: "vars", pointer: func(u *issuedRow) any { return &u.vars }},
	{name: "api_key_id", pointer: func(u *issuedRow) any { return &u.APIKeyID }},
	{name: "oss_upload_id", pointer: func(u *issuedRow) any { return &u.OSSUploadID }},
}

// issuedKind is how issued uploads are written.
var issuedKind = kind[issuedRow]{
	fields: issuedFields,
	insert: newStatement("upcall_issue", `
		WITH issued AS (
			INSERT INTO upcall.issued_uploads ({columns}) SELECT * FROM unnest({given})
			ON CONFLICT DO NOTHING
			RETURNING upload_id
		)
		SELECT upload_id, 'n'::"char" FROM issued
		UNION ALL SELECT NULL, NULL WHERE `+barrier, issuedFields),
}
