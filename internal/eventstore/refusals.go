package eventstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/event"
	"upcall/migrations"
)

const (
	// DefaultMaxRefusals is how many rows upcall.refused_callbacks has at most, about: a
	// row takes 2.5 KB at the very most, so 250 MB.
	DefaultMaxRefusals = 100_000

	maxClaim     = 1024 // bytes of a bucket or key; OSS's longest key has 1023
	maxRequestID = 128  // bytes; OSS's have 24

	// trimStep is the most rows that one statement deletes, here and of callback_ids.
	trimStep = 5000
)

// Refusals keeps refused callbacks, in a table that does not grow beyond its bound.
type Refusals struct {
	pool *pgxpool.Pool
	most int

	mu    sync.Mutex
	added int // rows since the last trim
}

// NewRefusals keeps at most that many rows in the database of a pool from [Open].
func NewRefusals(pool *pgxpool.Pool, most int) (*Refusals, error) {
	if pool == nil || most < 1 {
		return nil, errors.New("refusals: a pool and a positive number of rows are required")
	}
	return &Refusals{pool: pool, most: most, added: most}, nil // so that the first rows trim
}

// Keep writes the refusals; one that is there already stays as it is. It trims now and
// then, so that the table exceeds its bound by a hundredth, and what it is given, for each
// receiver at most.
func (r *Refusals) Keep(ctx context.Context, refusals []event.RefusedCallback) error {
	if len(refusals) == 0 {
		return nil
	}
	var (
		digests                            []uuid.UUID
		reasons                            []string
		times                              []time.Time
		buckets, keys, requestIDs, sources []pgtype.Text
		uploadIDs                          []uuid.NullUUID
	)
	for _, f := range refusals {
		digests = append(digests, f.Digest)
		reasons = append(reasons, f.Reason)
		times = append(times, f.At)
		source := pgtype.Text{Valid: f.Source.IsValid()}
		if source.Valid {
			source.String = f.Source.WithZone("").String()
		}
		sources = append(sources, source)
		buckets = append(buckets, claim(f.Bucket, maxClaim))
		keys = append(keys, claim(f.Object, maxClaim))
		requestIDs = append(requestIDs, claim(f.RequestID, maxRequestID))
		uploadIDs = append(uploadIDs, f.UploadID)
	}
	tag, err := r.pool.Exec(ctx, `
		INSERT INTO upcall.refused_callbacks (digest, reason, refused_at, source_addr, bucket, object_key, request_id, upload_id)
		SELECT digest, reason, refused_at, source_addr::inet, bucket, object_key, request_id, upload_id
		FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::text[], $7::text[], $8::uuid[])
			AS given (digest, reason, refused_at, source_addr, bucket, object_key, request_id, upload_id)
		ORDER BY digest, reason -- so that no two receivers wait for each other
		ON CONFLICT DO NOTHING`,
		digests, reasons, times, sources, buckets, keys, requestIDs, uploadIDs)
	if err != nil {
		return fmt.Errorf("keep refusals: %w", unavailable(err))
	}
	r.mu.Lock()
	r.added += int(tag.RowsAffected())
	due := r.added > r.most/100
	r.mu.Unlock()
	if !due {
		return nil
	}
	_, err = r.Trim(ctx)
	return err
}

// Trim deletes the oldest refusals until there are no more than there may be, in small
// steps, and returns how many. The reason that has the most rows gives first, so that a
// flood of one kind does not wash away the others. One trims after the other.
func (r *Refusals) Trim(ctx context.Context) (int, error) {
	r.mu.Lock()
	r.added = 0
	r.mu.Unlock()
	for total := 0; ; {
		n, err := r.trimOnce(ctx)
		total += n
		if err != nil {
			return total, fmt.Errorf("trim refusals: %w", unavailable(err))
		}
		if n == 0 {
			return total, nil
		}
	}
}

func (r *Refusals) trimOnce(ctx context.Context) (deleted int, err error) {
	err = pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) error {
		// While one waits here, it adds no rows.
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", migrations.LockRefusals); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, "SELECT reason, count(*) FROM upcall.refused_callbacks GROUP BY reason")
		if err != nil {
			return err
		}
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
		deleted = int(tag.RowsAffected())
		return err
	})
	return deleted, err
}

// claim returns what PostgreSQL can hold of a text that anyone may have sent: its first
// bytes, with a question mark for what is no UTF-8, and without NUL.
func claim(s string, most int) pgtype.Text {
	s = strings.ToValidUTF8(s[:min(len(s), most)], "?")
	s = strings.ReplaceAll(s, "\x00", "")
	return pgtype.Text{String: s, Valid: s != ""}
}
