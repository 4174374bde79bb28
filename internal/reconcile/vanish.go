package reconcile

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"upcall/internal/event"
	"upcall/internal/eventstore"
)

// vanishSQL reads a page of the objects of the log, and of these those that were not listed. Whose removal
// is known is not missed, as in the view uploads, and what was told of after the listing began may be too new for it.
const vanishSQL = `WITH page AS MATERIALIZED (
		SELECT object_key, received_at, CASE WHEN source = 'callback' AND request_id ~ '^[0-9A-Fa-f]{24}$'
			THEN to_timestamp(('x' || left(request_id, 8))::bit(32)::bigint) END AS begun_at
		FROM upcall.rollup_objects
		WHERE generation = (SELECT generation FROM upcall.rollup_generations WHERE stage = 'current')
			AND bucket = $1 AND object_key >= $3 AND object_key > $4 AND object_key < $5
		ORDER BY object_key LIMIT $6
	), gone AS (
		SELECT page.object_key FROM page
		LEFT JOIN LATERAL (SELECT true AS there FROM upcall.reconcile_objects o
			WHERE o.run_id = $2 AND o.object_key = page.object_key OFFSET 0) AS listed ON true
		LEFT JOIN LATERAL (SELECT true AS noted FROM upcall.removals d
			WHERE d.bucket = $1 AND d.object_key = page.object_key AND d.removed_at >= CASE
				WHEN d.source = 'notification'
					AND page.received_at BETWEEN page.begun_at - interval '10 seconds' AND page.begun_at + interval '10 seconds'
				THEN greatest(page.begun_at, least(page.received_at, page.begun_at + interval '1 second')) ELSE page.received_at END
			OFFSET 0) AS removal ON true
		WHERE listed.there IS NULL AND removal.noted IS NULL AND page.received_at < $7
			AND ($8::timestamptz IS NULL OR page.received_at >= $8)
	)
	SELECT object_key, false FROM gone UNION ALL SELECT max(object_key), true FROM page HAVING count(*) > 0`

// vanish finds the objects of the log that are not in the bucket, and asks OSS for each: what is put there
// while the run is under way is not gone.
func (r *run) vanish(ctx context.Context) error {
	for limit := firstPage; ; {
		began := time.Now()
		gone, last, err := r.vanishPage(ctx, limit)
		if err != nil {
			return err
		}
		if last == "" {
			return nil
		}
		limit = paced(limit, time.Since(began))
		for len(gone) > 0 {
			step := gone[:min(headPage, len(gone))]
			gone = gone[len(step):]
			if err := r.lookForGone(ctx, step); err != nil {
				return err
			}
		}
		if r.after == last {
			continue
		}
		next := r.record
		next.after = last
		if err := r.commit(ctx, next, nil); err != nil {
			return err
		}
		r.report()
	}
}

func (r *run) vanishPage(ctx context.Context, limit int) (gone []string, last string, err error) {
	_, err = eventstore.Exec(ctx, r.Pool, "upcall_reconcile_vanish", vanishSQL, func(rows pgx.Rows) error {
		gone = nil
		var key string
		var summary bool
		_, err := pgx.ForEachRow(rows, []any{&key, &summary}, func() error {
			if summary {
				last = key
			} else {
				gone = append(gone, key)
			}
			return nil
		})
		return err
	}, r.Bucket, r.id, r.Prefix, r.after, prefixEnd(r.Prefix), limit, r.listedAt, nullTime(r.Since))
	if err != nil {
		return nil, "", fmt.Errorf("read objects: %w", eventstore.Unavailable(err))
	}
	return gone, last, nil
}

// lookForGone asks OSS for objects that were not listed, and stores which of them are gone.
func (r *run) lookForGone(ctx context.Context, keys []string) error {
	at := r.Now() // before OSS is asked, so that no later upload counts as removed
	found, err := r.heads(ctx, keys)
	if err != nil {
		return err
	}
	next := r.record
	next.after = keys[len(keys)-1]
	var gone []string
	for _, key := range keys {
		if _, there := found[key]; !there {
			gone = append(gone, key)
		}
	}
	next.counts.Vanished += int64(len(gone))
	return r.commit(ctx, next, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO upcall.reconcile_objects (run_id, object_key, last_modified, state)
			SELECT $1, object_key, $3, 'vanished' FROM unnest($2::text[]) AS given (object_key) ON CONFLICT DO NOTHING`, r.id, gone, at)
		return err
	})
}

// prefixEnd returns a text after all keys that begin with the prefix, and before all others that come later.
func prefixEnd(prefix string) string {
	runes := []rune(prefix)
	for i := len(runes) - 1; i >= 0; i-- {
		next := runes[i] + 1
		if next == 0xd800 {
			next = 0xe000 // what is between is not text
		}
		if next <= 0x10ffff {
			return string(append(runes[:i:i], next))
		}
	}
	return strings.Repeat(maxName, 256) // longer than any key
}

// note notes the removals of what has vanished.
func (r *run) note(ctx context.Context) error {
	for !r.DryRun {
		var removals []eventstore.Removal
		_, err := eventstore.Exec(ctx, r.Pool, "upcall_reconcile_note", `SELECT object_key, last_modified FROM upcall.reconcile_objects
			WHERE run_id = $1 AND state = 'vanished' AND object_key > $2 ORDER BY object_key LIMIT $3`, func(rows pgx.Rows) error {
			removal := eventstore.Removal{Bucket: r.Bucket, Source: string(event.SourceReconcile)}
			_, err := pgx.ForEachRow(rows, []any{&removal.Object, &removal.At}, func() error {
				removals = append(removals, removal)
				return nil
			})
			return err
		}, r.id, r.after, firstPage)
		if err != nil {
			return fmt.Errorf("read vanished objects: %w", eventstore.Unavailable(err))
		}
		if len(removals) == 0 {
			return nil
		}
		next := r.record
		next.after = removals[len(removals)-1].Object
		// Again after a crash, which changes nothing.
		if err := eventstore.NoteRemovals(ctx, r.Pool, removals); err != nil {
			return err
		}
		if err := r.commit(ctx, next, nil); err != nil {
			return err
		}
	}
	return nil
}
