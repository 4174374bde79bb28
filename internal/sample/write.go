package sample

import (
	"context"
	"encoding/json"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"upcall/internal/event"
	"upcall/internal/eventstore"
)

// A batch is what one transaction writes.
type batch struct {
	events  []event.Event
	issued  []*eventstore.IssuedUpload
	revoked []revocation
}

type revocation struct {
	id uuid.UUID
	at time.Time
}

// batches makes all events, in the order in which they are recorded, until use returns false.
func (m *maker) batches(size int, use func(*batch) bool) {
	late := make(map[int][]row) // by the event that they come after
	b := &batch{}
	add := func(r row) bool {
		b.events = append(b.events, r.event)
		if r.issued != nil {
			b.issue(r.issued, r.revoked)
		}
		if len(b.events) < size {
			return true
		}
		full := b
		b = &batch{}
		return use(full)
	}
	for i := range m.events {
		r := m.row(i)
		if r.late > 0 && i+r.late < m.events {
			late[i+r.late] = append(late[i+r.late], r)
		} else if !add(r) {
			return
		}
		for _, r := range late[i] {
			if !add(r) {
				return
			}
		}
		delete(late, i)
		if issued, revoked := m.unused(i); issued != nil {
			b.issue(issued, revoked)
		}
	}
	if len(b.events) > 0 {
		use(b)
	}
}

func (b *batch) issue(upload *eventstore.IssuedUpload, revoked time.Time) {
	b.issued = append(b.issued, upload)
	if !revoked.IsZero() {
		b.revoked = append(b.revoked, revocation{upload.ID, revoked})
	}
}

// write reports how many events it has written.
func (b *batch) write(ctx context.Context, tx pgx.Tx, report func(events int)) error {
	err := copyAll(ctx, tx, "issued_uploads", issuedColumns, b.issued, func(u *eventstore.IssuedUpload) ([]any, error) {
		vars, err := json.Marshal(u.Vars)
		return []any{pgtype.UUID{Bytes: u.ID, Valid: true}, u.IssuedAt, u.ExpiresAt, u.Bucket, u.Object, orNull(u.ContentType), u.Size,
			vars, orNull(u.APIKeyID), orNull(u.OSSUploadID)}, err
	}, nil)
	if err != nil {
		return err
	}
	err = copyAll(ctx, tx, "revoked_uploads", []string{"upload_id", "revoked_at"}, b.revoked, func(r revocation) ([]any, error) {
		return []any{pgtype.UUID{Bytes: r.id, Valid: true}, r.at}, nil
	}, nil)
	if err != nil {
		return err
	}
	err = copyAll(ctx, tx, "callback_ids", []string{"upload_id", "id", "received_at"}, b.events, func(e event.Event) ([]any, error) {
		return []any{pgtype.UUID{Bytes: e.UploadID.UUID, Valid: true}, pgtype.UUID{Bytes: e.ID, Valid: true}, e.ReceivedAt}, nil
	}, nil)
	if err != nil {
		return err
	}
	var names []string
	for _, c := range event.Columns {
		names = append(names, c.Name)
	}
	return copyAll(ctx, tx, "upload_events", names, b.events, eventValues, report)
}

var issuedColumns = []string{"upload_id", "issued_at", "expires_at", "bucket", "object_key", "content_type", "size", "vars",
	"api_key_id", "oss_upload_id"}

// copyAll copies rows to a table.
func copyAll[T any](ctx context.Context, tx pgx.Tx, table string, columns []string, rows []T,
	values func(T) ([]any, error), report func(int)) error {
	done := 0
	for part := range slices.Chunk(rows, copyRows) {
		_, err := tx.CopyFrom(ctx, pgx.Identifier{"upcall", table}, columns, pgx.CopyFromSlice(len(part), func(i int) ([]any, error) {
			return values(part[i])
		}))
		if err != nil {
			return fmt.Errorf("copy to %s: %w", table, err)
		}
		if done += len(part); report != nil {
			report(done)
		}
	}
	return nil
}

// eventValues returns the values of event.Columns.
func eventValues(e event.Event) ([]any, error) {
	values := make([]any, len(event.Columns))
	for i, c := range event.Columns {
		switch v := c.Field(&e).(type) {
		case *uuid.UUID:
			values[i] = pgtype.UUID{Bytes: *v, Valid: true}
		case *uuid.NullUUID:
			values[i] = pgtype.UUID{Bytes: v.UUID, Valid: v.Valid}
		case *time.Time:
			values[i] = *v
		case *string:
			values[i] = orNull(*v)
		case **int64:
			values[i] = *v
		case **int32:
			values[i] = *v
		case **uint64:
			if *v != nil {
				values[i] = pgtype.Numeric{Int: new(big.Int).SetUint64(**v), Valid: true}
			}
		case *netip.Addr:
			if v.IsValid() {
				values[i] = *v
			}
		case *map[string]json.RawMessage:
			text, err := json.Marshal(*v)
			if err != nil {
				return nil, err
			}
			values[i] = text
		default:
			return nil, fmt.Errorf("there is no value for a %T", v)
		}
	}
	return values, nil
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}
