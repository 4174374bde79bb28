package eventstore

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype/zeronull"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/ossrule"
)

// An Object is the bucket and the full key of an object.
type Object struct{ Bucket, Key string }

// A StoredObject is one with the time at which it was stored, by OSS's clock; zero if that is not known.
type StoredObject struct {
	Object
	At time.Time
}

// A FoundUpload is an upload of the ledger, with what its use depends on.
type FoundUpload struct {
	IssuedUpload
	RevokedAt time.Time // zero if it was not revoked
	Used      bool      // an event of it is recorded
}

// rank is smaller for uploads that an object is more likely of: one to its key alone that was not used, then one to
// any key under a prefix, of which one more use is likely, then one to its key that was used before.
func (u *FoundUpload) rank() int {
	switch {
	case u.ByPrefix:
		return 1
	case u.Used:
		return 2
	}
	return 0
}

// mostIssued is how many issued uploads of one object are looked at, the latest before it was stored. Some keys,
// such as that of a user's picture, are issued again and again.
const mostIssued = 100

const findIssued = `
	SELECT u.upload_id, u.issued_at, u.expires_at, u.bucket, given.object_key, u.by_prefix, coalesce(u.content_type, ''), u.size,
		u.vars, coalesce(u.api_key_id, ''), coalesce(u.oss_upload_id, ''), u.revoked_at, u.used
	FROM (SELECT DISTINCT * FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[]) AS given (bucket, object_key, before, look)
		) AS given
	CROSS JOIN LATERAL (
		SELECT i.*, (SELECT r.revoked_at FROM upcall.revoked_uploads r WHERE r.upload_id = i.upload_id) AS revoked_at,
			EXISTS (SELECT FROM upcall.callback_ids c WHERE c.upload_id = i.upload_id) AS used
		FROM upcall.issued_uploads i WHERE i.object_key = given.look AND i.bucket = given.bucket
			AND i.by_prefix = (given.look <> given.object_key)
			AND (i.issued_at <= given.before OR given.before IS NULL)
		ORDER BY i.issued_at DESC, i.upload_id DESC LIMIT $5
	) AS u`

// FindIssued returns the uploads that were issued for objects before they were stored, of each object the latest
// 100, and as many of each prefix that it is under; the key of those is the object's. If the same object is given twice,
// an upload may be there twice.
// The pool is from [Open]. The error wraps [event.ErrUnavailable].
func FindIssued(ctx context.Context, pool *pgxpool.Pool, objects []StoredObject) (found []FoundUpload, err error) {
	var buckets, keys, looks []string
	var before []*time.Time
	for _, o := range objects {
		var at *time.Time
		if !o.At.IsZero() {
			at = new(o.At.Add(clocksApart))
		}
		for look := range places(o.Key) {
			buckets, keys, looks, before = append(buckets, o.Bucket), append(keys, o.Key), append(looks, look), append(before, at)
		}
	}
	_, err = execOne(ctx, pool, func(rows pgx.Rows) error {
		found, err = pgx.CollectRows(rows, scanFound)
		return err
	}, findIssued, buckets, keys, before, looks, mostIssued)
	if err != nil {
		return nil, fmt.Errorf("find issued uploads: %w", unavailable(err))
	}
	return found, nil
}

// places are what an upload to an object may have been issued for: its key, and the folders that it is in, see
// [ossrule.CheckPrefix].
func places(key string) iter.Seq[string] {
	return func(yield func(string) bool) {
		if !yield(key) {
			return
		}
		for n, at := 0, 0; n < ossrule.MaxFolders; n++ {
			next := strings.IndexByte(key[at:], '/')
			if next < 0 || at+next+1 == len(key) {
				return
			}
			at += next + 1
			if !yield(key[:at]) {
				return
			}
		}
	}
}

// FindVars returns the custom variables of issued uploads by their ids. The pool is from [Open]. The error wraps
// [event.ErrUnavailable].
func FindVars(ctx context.Context, pool *pgxpool.Pool, ids []uuid.UUID) (found map[uuid.UUID]IssuedUpload, err error) {
	_, err = execOne(ctx, pool, func(rows pgx.Rows) error {
		found = make(map[uuid.UUID]IssuedUpload)
		var u IssuedUpload
		_, err := pgx.ForEachRow(rows, []any{&u.ID, &u.Vars}, func() error { found[u.ID] = u; u.Vars = nil; return nil })
		return err
	}, "SELECT upload_id, vars FROM upcall.issued_uploads WHERE upload_id = ANY ($1)", ids)
	if err != nil {
		return nil, fmt.Errorf("find issued uploads: %w", unavailable(err))
	}
	return found, nil
}

func scanFound(row pgx.CollectableRow) (u FoundUpload, err error) {
	err = row.Scan(&u.ID, &u.IssuedAt, &u.ExpiresAt, &u.Bucket, &u.Object, &u.ByPrefix, &u.ContentType, &u.Size,
		&u.Vars, &u.APIKeyID, &u.OSSUploadID, (*zeronull.Timestamptz)(&u.RevokedAt), &u.Used)
	return u, err
}

const (
	// clocksApart is how much the clocks of issuer and OSS may differ.
	clocksApart = time.Minute
	// lateUpload is for how long after its URL has expired an upload may be stored: it began before.
	lateUpload = 24 * time.Hour
)

// ChooseIssued returns the upload that an object of this size, stored at some time, is most likely of: the
// latest that was issued before and not used, else the latest under a prefix, else the latest that was issued before. One that allows only
// another size is not it, nor is one whose URL had expired a day before: then someone stored the object who
// needs no URL of ours. A size of nil is not known, and neither is a time of zero. Revoked uploads are not chosen,
// but revoked says whether one was in question, and no other.
func ChooseIssued(found []FoundUpload, of Object, at time.Time, size *int64) (chosen FoundUpload, revoked bool) {
	better := func(u FoundUpload) bool {
		if chosen.ID == uuid.Nil || u.rank() != chosen.rank() {
			return chosen.ID == uuid.Nil || u.rank() < chosen.rank()
		}
		return u.IssuedAt.After(chosen.IssuedAt)
	}
	for _, u := range found {
		if u.Bucket != of.Bucket || u.Object != of.Key || size != nil && u.Size != nil && *size != *u.Size ||
			!at.IsZero() && (u.IssuedAt.After(at.Add(clocksApart)) || at.After(u.ExpiresAt.Add(lateUpload))) {
			continue
		}
		if !u.RevokedAt.IsZero() {
			revoked = true
		} else if better(u) {
			chosen = u
		}
	}
	return chosen, revoked && chosen.ID == uuid.Nil
}

// EventVars returns custom variables as an event has them.
func (u *IssuedUpload) EventVars() map[string]json.RawMessage {
	vars := make(map[string]json.RawMessage, len(u.Vars))
	for name, value := range u.Vars {
		text, _ := json.Marshal(value) // texts can always be marshaled
		vars[name] = text
	}
	return vars
}
