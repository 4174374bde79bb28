package eventstore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// removalStep is how many removals one statement notes, because a transaction that writes holds up
	// all readers of the log.
	removalStep = 1000
	// maxObject is how many bytes of bucket and key the index of removals takes; OSS has none that long.
	maxObject = 2000
)

// A Removal says that an object was gone from its bucket at some time.
type Removal struct {
	Bucket, Object string
	At             time.Time
	Source         string // notification, reconcile or confirm
}

// NoteRemovals notes removals, which the view uploads then shows of uploads that were not stored
// later. Of several of an object, the latest counts, whatever the order in which they are noted.
// Names that no object can have are left out. The pool is from [Open] or [OpenFeed].
func NoteRemovals(ctx context.Context, pool *pgxpool.Pool, removals []Removal) error {
	for step := range slices.Chunk(removals, removalStep) {
		if err := Transact(ctx, pool, func(tx pgx.Tx) error { return NoteRemovalsIn(ctx, tx, step) }); err != nil {
			return fmt.Errorf("note removals: %w", unavailable(err))
		}
	}
	return nil
}

// NoteRemovalsIn is [NoteRemovals] of at most 1,000 in a transaction.
func NoteRemovalsIn(ctx context.Context, tx pgx.Tx, removals []Removal) error {
	var buckets, keys, sources []string
	var times []time.Time
	for _, r := range removals {
		if r.Bucket == "" || r.Object == "" || len(r.Bucket)+len(r.Object) > maxObject || unstorable(r.Bucket) || unstorable(r.Object) {
			continue
		}
		buckets, keys, times, sources = append(buckets, r.Bucket), append(keys, r.Object), append(times, r.At), append(sources, r.Source)
	}
	if len(buckets) == 0 {
		return nil
	}
	// In one order, so that no two wait for each other.
	_, err := tx.Exec(ctx, `
		INSERT INTO upcall.removals AS r (bucket, object_key, removed_at, source)
		SELECT DISTINCT ON (bucket, object_key) bucket, object_key, removed_at, source
		FROM (SELECT bucket COLLATE "C", object_key COLLATE "C", removed_at, source
			FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[]) AS given (bucket, object_key, removed_at, source)) AS named
		ORDER BY bucket, object_key, removed_at DESC
		ON CONFLICT (bucket, object_key) DO UPDATE SET removed_at = excluded.removed_at, source = excluded.source
			WHERE r.removed_at < excluded.removed_at`, buckets, keys, times, sources)
	return err
}

// unstorable reports whether PostgreSQL cannot hold a text.
func unstorable(text string) bool { return !utf8.ValidString(text) || strings.IndexByte(text, 0) >= 0 }
