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
	ID          uuid.UUID // as in its token
	IssuedAt    time.Time // PostgreSQL keeps microseconds of both times
	ExpiresAt   time.Time // OSS accepts no upload that begins later
	Bucket      string
	Object      string            // the full object key, or its beginning
	ByPrefix    bool              // the uploader chooses what follows Object, again and again until it expires
	ContentType string            // the only one that OSS accepts; "" allows any
	Size        *int64            // of the whole object, in bytes; nil if unknown
	Vars        map[string]string // custom variables by name without "x:"
	APIKeyID    string            // of the requester; "" for the command line
	OSSUploadID string            // of a multipart upload; "" for a single PUT
}

// A Ledger holds every issued upload. It commits them in groups, as a [Recorder] does
// events.
type Ledger struct {
	group *group[issuedRow]
}

// NewLedger starts the writers. PostgreSQL need not be running yet.
func NewLedger(config Config) (*Ledger, error) {
	g, err := issuedKind.start(config)
	if err != nil {
		return nil, fmt.Errorf("ledger config: %w", err)
	}
	return &Ledger{g}, nil
}

// Issue returns when the upload's row is committed. Issuing it again is harmless: the first
// row stays.
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

// Ping says whether PostgreSQL takes issued uploads: it commits a batch without any.
func (l *Ledger) Ping(ctx context.Context) error {
	if _, err := newWriter(l.group.config, l.group.kind).commit(ctx, nil); err != nil {
		return fmt.Errorf("ping: %w", unavailable(err))
	}
	return nil
}

// Close accepts no more uploads, and returns when those it accepted are answered.
func (l *Ledger) Close() { l.group.close() }

// An issuedRow is an upload that PostgreSQL can hold, as far as we can tell.
type issuedRow struct {
	IssuedUpload
	vars []byte // Vars as JSON
}

func newIssuedRow(u IssuedUpload) (issuedRow, error) {
	if u.ID == uuid.Nil || u.Bucket == "" || u.Object == "" || u.IssuedAt.IsZero() || u.ExpiresAt.IsZero() {
		return issuedRow{}, fmt.Errorf("%w: an issued upload has an id, a bucket, an object key and two times", event.ErrUnstorable)
	}
	texts := []string{u.Bucket, u.Object, u.ContentType, u.APIKeyID, u.OSSUploadID}
	for name, value := range u.Vars {
		texts = append(texts, name, value)
	}
	if err := storable(texts...); err != nil {
		return issuedRow{}, err
	}
	if u.Vars == nil {
		u.Vars = map[string]string{} // {} rather than null
	}
	vars, _ := json.Marshal(u.Vars) // texts can always be marshaled
	return issuedRow{u, vars}, nil
}

// issuedFields are the columns of issued uploads.
var issuedFields = []field[issuedRow]{
	{name: "upload_id", pointer: func(u *issuedRow) any { return &u.ID }},
	{name: "issued_at", pointer: func(u *issuedRow) any { return &u.IssuedAt }},
	{name: "expires_at", pointer: func(u *issuedRow) any { return &u.ExpiresAt }},
	{name: "bucket", pointer: func(u *issuedRow) any { return &u.Bucket }},
	{name: "object_key", pointer: func(u *issuedRow) any { return &u.Object }},
	{name: "by_prefix", pointer: func(u *issuedRow) any { return &u.ByPrefix }},
	{name: "content_type", pointer: func(u *issuedRow) any { return &u.ContentType }},
	{name: "size", pointer: func(u *issuedRow) any { return &u.Size }},
	{name: "vars", pointer: func(u *issuedRow) any { return &u.vars }},
	{name: "api_key_id", pointer: func(u *issuedRow) any { return &u.APIKeyID }},
	{name: "oss_upload_id", pointer: func(u *issuedRow) any { return &u.OSSUploadID }},
}

// issuedKind is how issued uploads are written.
var issuedKind = kind[issuedRow]{
	fields: issuedFields,
	bad:    event.ErrUnstorable,
	insert: newStatement("upcall_issue", `
		WITH issued AS (
			INSERT INTO upcall.issued_uploads ({columns}) SELECT {values} FROM {given}
			ON CONFLICT DO NOTHING
			RETURNING upload_id
		)
		SELECT upload_id, 'n'::"char" FROM issued
		UNION ALL SELECT NULL, NULL WHERE `+barrier, issuedFields),
}
