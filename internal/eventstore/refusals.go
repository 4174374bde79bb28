package eventstore

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype/zeronull"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/event"
	"upcall/migrations"
)

const (
	// DefaultMaxRefusals is about the most rows in upcall.refused_callbacks. A row takes at
	// most 2.5 KB, so that is 250 MB.
	DefaultMaxRefusals = 100_000

	maxClaim     = 1024 // bytes of a bucket or key; OSS's longest key has 1023
	maxRequestID = 128  // bytes; OSS's have 24

	// trimStep is the most rows that one statement deletes, here and of callback_ids.
	trimStep = 5000
)

// Refusals keeps refused callbacks in a table of bounded size.
type Refusals struct {
	pool  *pgxpool.Pool
	most  int
	added atomic.Int64 // rows since the last trim
}

// NewRefusals returns a store of at most that many rows, in the database of a pool from [Open].
func NewRefusals(pool *pgxpool.Pool, most int) (*Refusals, error) {
	if pool == nil || most < 1 {
		return nil, errors.New("refusals: a pool and a positive number of rows are required")
	}
	r := &Refusals{pool: pool, most: most}
	r.added.Store(int64(most)) // so that the first rows trim
	return r, nil
}

// Keep writes refusals that are not in the table yet. It trims now and then: each receiver
// exceeds the table's bound by at most a hundredth and the refusals of one call.
func (r *Refusals) Keep(ctx context.Context, refusals []event.RefusedCallback) error {
	if len(refusals) == 0 {
		return nil
	}
	var (
		digests                   []uuid.UUID
		reasons                   []string
		times                     []time.Time
		sources                   []netip.Addr
		buckets, keys, requestIDs []zeronull.Text
		uploadIDs                 []uuid.NullUUID
	)
	for _, f := range refusals {
		digests = append(digests, f.Digest)
		reasons = append(reasons, f.Reason)
		times = append(times, f.At)
		sources = append(sources, f.Source.WithZone("")) // inet has no zone
		buckets = append(buckets, claim(f.Bucket, maxClaim))
		keys = append(keys, claim(f.Object, maxClaim))
		requestIDs = append(requestIDs, claim(f.RequestID, maxRequestID))
		uploadIDs = append(uploadIDs, f.UploadID)
	}
	tag, err := r.pool.Exec(ctx, `
		INSERT INTO upcall.refused_callbacks (digest, reason, refused_at, source_addr, bucket, object_key, request_id, upload_id)
		SELECT digest, reason, refused_at, source_addr, bucket, object_key, request_id, upload_id
		FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::inet[], $5::text[], $6::text[], $7::text[], $8::uuid[])
			AS given (digest, reason, refused_at, source_addr, bucket, object_key, request_id, upload_id)
		ORDER BY digest, reason -- prevents deadlocks between receivers
		ON CONFLICT DO NOTHING`,
		digests, reasons, times, sources, buckets, keys, requestIDs, uploadIDs)
	if err != nil {
		r.added.Add(int64(len(refusals))) // they may be committed
		return fmt.Errorf("keep refusals: %w", unavailable(err))
	}
	if r.added.Add(tag.RowsAffected()) <= int64(r.most/100) {
		return nil
	}
	return r.Trim(ctx)
}

// Trim deletes the oldest refusals beyond the bound, in small steps. It begins with the reason
// that has the most rows, so that a flood of one reason does not push out the others. Only one
// process trims at a time.
func (r *Refusals) Trim(ctx context.Context) error {
	added := r.added.Swap(0)
	for {
		deleted, err := r.trimOnce(ctx)
		if err != nil {
			r.added.Add(added) // the next call of Keep trims
			return fmt.Errorf("trim refusals: %w", unavailable(err))
		}
		if deleted == 0 {
			return nil
		}
	}
}

func (r *Refusals) trimOnce(ctx context.Context) (deleted int64, err error) {
	err = Transact(ctx, r.pool, func(tx pgx.Tx) error {
		// A process that waits here adds no rows.
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", migrations.LockRefusals); err != nil {
			return err
		}
		rows, _ := tx.Query(ctx, "SELECT reason, count(*) FROM upcall.refused_callbacks GROUP BY reason")
		var reason, most string
		var n, largest, reasons, total int
		if _, err := pgx.ForEachRow(rows, []any{&reason, &n}, func() error {
			total, reasons = total+n, reasons+1
			if n > largest {
				most, largest = reason, n
			}
			return nil
		}); err != nil || total <= r.most {
			return err
		}
		tag, err := tx.Exec(ctx, `
			DELETE FROM upcall.refused_callbacks WHERE ctid = ANY (ARRAY(
				SELECT ctid FROM upcall.refused_callbacks WHERE reason = $1 ORDER BY refused_at LIMIT $2))`,
			most, min(trimStep, total-r.most, largest-r.most/reasons))
		deleted = tag.RowsAffected()
		return err
	})
	return deleted, err
}

// claim returns what PostgreSQL can hold of a text that anyone may have sent: its first
// bytes, with a question mark for what is not UTF-8, and without NUL.
func claim(s string, most int) zeronull.Text {
	s = strings.ToValidUTF8(s[:min(len(s), most)], "?")
	return zeronull.Text(strings.ReplaceAll(s, "\x00", ""))
}
